"""The folder of models: ids, revisions, and files with sizes and digests."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# The two hubs' names of the default revision.
DEFAULT_REVISIONS = ("master", "main")
_MODEL_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class NoSuchModelError(LookupError):
    """The folder holds no model of that id."""


class NoSuchRevisionError(LookupError):
    """The model has no revision of that name."""


@dataclass(frozen=True)
class StoredFile:
    """One file of a model: `path` is relative with forward slashes, `size` in bytes, digests in hex."""

    path: str
    size: int
    sha256: str
    git_sha1: str
    location: Path


@dataclass(frozen=True)
class Snapshot:
    """One revision of one model. `commit` changes whenever a file does."""

    model_id: str
    revision: str
    commit: str
    files: tuple[StoredFile, ...]

    def file(self, path: str) -> StoredFile | None:
        """Find a file by its path."""
        return next((file for file in self.files if file.path == path), None)


class Library:
    """`root/<owner>/<name>/` is a model's default revision, `root/<owner>/<name>@<revision>/` another."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def model_ids(self) -> list[str]:
        """Every model in the folder."""
        folders = (path for path in self.root.glob("*/*") if path.is_dir())
        return sorted({f"{path.parent.name}/{path.name.partition('@')[0]}" for path in folders})

    def revisions(self, model_id: str) -> list[str]:
        """Names of a model's revisions, the default first. Raises NoSuchModelError."""
        return list(self._folders(model_id))

    def snapshot(self, model_id: str, revision: str | None = None) -> Snapshot:
        """One revision's files; a commit id names a revision too.

        Raises NoSuchModelError or NoSuchRevisionError.
        """
        folders = self._folders(model_id)
        if revision is None or revision in DEFAULT_REVISIONS:
            revision = next(iter(folders))
        for name, folder in folders.items():
            if name == revision or _COMMIT.fullmatch(revision):
                files = tuple(_files(folder))
                if revision in (name, commit := _commit(files)):
                    return Snapshot(model_id, name, commit, files)
        raise NoSuchRevisionError(revision)

    def _folders(self, model_id: str) -> dict[str, Path]:
        if not _MODEL_ID.fullmatch(model_id) or ".." in model_id:
            raise NoSuchModelError(model_id)
        home = self.root / model_id
        folders = {DEFAULT_REVISIONS[0]: home} if home.is_dir() else {}
        others = sorted(home.parent.glob(f"{home.name}@*"))
        folders |= {path.name.partition("@")[2]: path for path in others if path.is_dir()}
        if not folders:
            raise NoSuchModelError(model_id)
        return folders


def _files(folder: Path) -> Iterator[StoredFile]:
    for location in sorted(folder.rglob("*")):
        if location.is_file():
            stat = location.stat()
            sha256, git_sha1 = _digests(location, stat.st_size, stat.st_mtime_ns)
            yield StoredFile(location.relative_to(folder).as_posix(), stat.st_size, sha256, git_sha1, location)


@cache
def _digests(location: Path, size: int, _mtime_ns: int) -> tuple[str, str]:
    """Read a file once and remember its SHA-256 and git blob id until it changes."""
    sha256 = hashlib.sha256()
    # The hubs' clients expect a git blob id for small files; it is no signature.
    git_sha1 = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with location.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            git_sha1.update(block)
    return sha256.hexdigest(), git_sha1.hexdigest()


def _commit(files: tuple[StoredFile, ...]) -> str:
    listing = "".join(f"{file.path}\0{file.sha256}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()[:40]
