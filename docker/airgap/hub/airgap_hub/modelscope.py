"""The ModelScope routes that `snapshot_download` and `HubApi` call (modelscope-hub 0.5)."""

import re
from http import HTTPStatus
from typing import Any

from .answers import Answer, FileBody, Json, Request
from .library import Library, NoSuchModelError, NoSuchRevisionError, Snapshot

_ROUTE = re.compile(r"/(?:api|openapi)/v1/models/(?P<id>[^/]+/[^/]+)(?P<rest>/revisions|/repo/files|/repo)?/?")
# The hub's own business code for what it cannot find.
_NOT_FOUND_CODE = 10010205001


def answer(library: Library, request: Request) -> Answer | None:
    """Answer a ModelScope request; None when the path is no route of this hub."""
    if request.path == "/api/v1/repos/internalAccelerationInfo":
        return _data({})
    route = _ROUTE.fullmatch(request.path)
    if route is None:
        return None
    try:
        return _model_answer(library, route["id"], route["rest"], request.query)
    except NoSuchRevisionError as error:
        return _missing(f"revision {error} of {route['id']}")
    except NoSuchModelError as error:
        return _missing(f"model {error}")


def _model_answer(library: Library, model_id: str, rest: str | None, query: dict[str, str]) -> Answer:
    revisions = library.revisions(model_id)
    if rest is None:
        owner, name = model_id.split("/")
        return _data({"Id": model_id, "Path": owner, "Name": name})
    if rest == "/revisions":
        names = [{"Revision": name} for name in revisions]
        return _data({"RevisionMap": {"Branches": names[:1], "Tags": names[1:]}})
    snapshot = library.snapshot(model_id, query.get("Revision"))
    if rest == "/repo/files":
        return _data({"Files": _listing(snapshot, query.get("Root", ""))})
    wanted = query.get("FilePath", "")
    file = snapshot.file(wanted)
    return FileBody(file) if file else _missing(f"file {wanted!r} of {model_id}")


def _listing(snapshot: Snapshot, root: str) -> list[dict[str, Any]]:
    return [
        {
            "Name": file.path.rpartition("/")[2],
            "Path": file.path,
            "Type": "blob",
            "Size": file.size,
            "Sha256": file.sha256,
            "Revision": snapshot.commit,
        }
        for file in snapshot.files
        if not root or file.path.startswith(root.rstrip("/") + "/")
    ]


def _data(data: Any) -> Json:
    return Json({"Code": HTTPStatus.OK, "Success": True, "Message": "success", "Data": data})


def _missing(what: str) -> Json:
    body = {"Code": _NOT_FOUND_CODE, "Success": False, "Message": f"not found: {what}"}
    return Json(body, HTTPStatus.NOT_FOUND)
