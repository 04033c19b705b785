"""The Hugging Face routes that its client calls for a listing and for files (huggingface_hub 2.4)."""

import re
from http import HTTPStatus
from typing import Any

from .answers import Answer, FileBody, Json, Request
from .library import Library, NoSuchModelError, NoSuchRevisionError, Snapshot, StoredFile

_MODEL = r"(?P<id>[^/]+/[^/]+)"
_API = re.compile(rf"/api/models/{_MODEL}(?P<what>/refs|/revision|/tree)?(?:/(?P<revision>[^/]+))?")
_FILE = re.compile(rf"/{_MODEL}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
# The hub stores large files by SHA-256 and small ones as git blobs.
_LARGE = 1_000_000
_POINTER_SIZE = 135


def answer(library: Library, request: Request) -> Answer | None:
    """Answer a Hugging Face request; None when the path is no route of this hub."""
    api, file = _API.fullmatch(request.path), _FILE.fullmatch(request.path)
    route = api or file
    if route is None:
        return None
    try:
        if file is not None:
            return _file(library.snapshot(file["id"], file["revision"]), file["path"])
        return _about(library, route["id"], route["what"], route["revision"])
    except NoSuchRevisionError as error:
        return _missing("RevisionNotFound", f"Invalid rev id: {error}")
    except NoSuchModelError:
        return _missing("RepoNotFound", "Repository not found")


def _about(library: Library, model_id: str, what: str | None, revision: str | None) -> Answer:
    if what == "/refs":
        names = ["main", *library.revisions(model_id)[1:]]
        refs = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": library.snapshot(model_id, name).commit}
            for name in names
        ]
        return Json({"branches": refs, "tags": [], "converts": []})
    snapshot = library.snapshot(model_id, revision)
    if what == "/tree":
        return Json([_entry(file) for file in snapshot.files])
    siblings = [{"rfilename": file.path} for file in snapshot.files]
    return Json({"id": model_id, "sha": snapshot.commit, "private": False, "tags": [], "siblings": siblings})


def _entry(file: StoredFile) -> dict[str, Any]:
    entry = {"type": "file", "path": file.path, "size": file.size, "oid": file.git_sha1}
    if file.size > _LARGE:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": _POINTER_SIZE}
    return entry


def _file(snapshot: Snapshot, path: str) -> Answer:
    file = snapshot.file(path)
    if file is None:
        return _missing("EntryNotFound", f"{path} does not exist", {"X-Repo-Commit": snapshot.commit})
    etag = file.sha256 if file.size > _LARGE else file.git_sha1
    return FileBody(file, {"X-Repo-Commit": snapshot.commit, "ETag": f'"{etag}"'})


def _missing(code: str, message: str, headers: dict[str, str] | None = None) -> Json:
    marks = {"X-Error-Code": code, "X-Error-Message": message}
    return Json({"error": message}, HTTPStatus.NOT_FOUND, marks | (headers or {}))
