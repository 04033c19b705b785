"""The manifest of a model's folder, and READY, the mark that the folder is complete."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .listing import MANIFEST, READY
from .volume import sync

# Errors of parsing: no JSON, too deep, other fields, other types.
NO_MANIFEST = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True)
class FileRecord:
    """One file of a model: relative path with forward slashes, bytes, hex digest."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Content and origin of a model's folder; `commit` is the revision's commit at download, where known.

    `allow` and `ignore` are the patterns that selected the files.
    """

    source: str
    id: str
    revision: str
    files: tuple[FileRecord, ...]
    commit: str = ""
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse a manifest.json. Raises one of NO_MANIFEST."""
        document = json.loads(text)
        document["files"] = tuple(FileRecord(**record) for record in document["files"])
        document["allow"], document["ignore"] = tuple(document["allow"]), tuple(document["ignore"])
        return cls(**document)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def read_ready(folder: Path) -> Manifest | None:
    """The manifest of a complete model; None unless READY matches it and every file has its size."""
    try:
        text = (folder / MANIFEST).read_text()
        if (folder / READY).read_text().strip() != _digest(text):
            return None
        manifest = Manifest.from_json(text)
        complete = all((folder / file.path).stat().st_size == file.size for file in manifest.files)
    except (OSError, *NO_MANIFEST):
        return None
    return manifest if complete else None


def unready(folder: Path) -> None:
    """Remove READY; call it before anything in the folder changes."""
    (folder / READY).unlink(missing_ok=True)


def write_ready(folder: Path, manifest: Manifest) -> None:
    """Mark a folder complete: sync the data, then write the manifest, then READY, each atomically."""
    for file in manifest.files:
        sync(folder / file.path)
    text = manifest.to_json()
    for name, content in ((MANIFEST, text), (READY, _digest(text) + "\n")):
        temporary = folder / f".{name}.new"
        temporary.write_text(content)
        sync(temporary)
        temporary.replace(folder / name)
        sync(folder)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
