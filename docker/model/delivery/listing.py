"""What a source says it holds, and which part of it is wanted."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from .settings import DeliveryError

# The same weights in other forms. Engines read safetensors first; fetching these too doubles the download.
_DUPLICATES = (
    "*.bin",
    "*.ckpt",
    "*.gguf",
    "*.h5",
    "*.msgpack",
    "*.onnx",
    "*.onnx_data",
    "*.ot",
    "*.pt",
    "*.pth",
    "*.tflite",
    "consolidated*.safetensors",
)


# Names that the volume uses for itself; a repository may have files of these names, no engine needs them.
MANIFEST = "manifest.json"
READY = "READY"


# What a hub's client raises on an answer that is no listing: no JSON, too deep, other fields, other types.
NO_LISTING = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)


class TransientError(Exception):
    """A failure that may heal by itself: the text says what happened; trying again is right."""


@dataclass(frozen=True)
class RemoteFile:
    """One file on a source: relative path with forward slashes, bytes, hex digests where the source gives them.

    `git_sha1` is the git blob id, the only digest that Hugging Face gives for small files.
    """

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what a source cannot mean: listings come from the network."""
        if not (isinstance(self.path, str) and self.path.strip("/.") and "\0" not in self.path):
            raise ValueError(f"a file is called {self.path!r}")
        if not (isinstance(self.size, int) and self.size >= 0):
            raise ValueError(f"{self.path} has {self.size!r} bytes")


@dataclass(frozen=True)
class Listing:
    """The files of one revision; `commit` is what the revision's name meant when it was asked, where known."""

    files: tuple[RemoteFile, ...]
    commit: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def select(listing: Listing, allow: Sequence[str], ignore: Sequence[str]) -> Listing:
    """Keep the files that fit one of `allow` (when any is given) and none of `ignore`; shell patterns.

    With no `allow`, other forms of the same weights are left out where there are safetensors. Raises DeliveryError
    for a path that would be written outside of the model's folder.
    """
    for file in listing.files:
        if file.path.startswith("/") or ".." in PurePosixPath(file.path).parts:
            raise DeliveryError(f"{file.path}: the source lists a file outside of the model's folder: do not trust it")
    files = tuple(file for file in listing.files if file.path not in {MANIFEST, READY})
    if allow:
        files = tuple(file for file in files if _fits(file.path, allow))
    elif any(file.path.endswith(".safetensors") and not _fits(file.path, _DUPLICATES) for file in files):
        files = tuple(file for file in files if not _fits(file.path, _DUPLICATES))
    return Listing(tuple(file for file in files if not _fits(file.path, ignore)), listing.commit)


def _fits(path: str, patterns: Sequence[str]) -> bool:
    """Whether a whole path, or its last part, fits a pattern: `*.bin` means those in folders too."""
    name = PurePosixPath(path).name
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in patterns)
