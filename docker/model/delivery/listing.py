"""A source's listing of files, and the selection of those to fetch."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from .settings import DeliveryError, Settings

# Other forms of the same weights: engines prefer safetensors, and fetching both doubles the download.
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
# Folder of one step of a sentence-transformers model, such as 2_Dense: its weights are there in one form only.
_STEP = re.compile(r"[0-9]+_[A-Za-z]+")


# Names reserved on the volume; a repository's files of these names are skipped, no engine needs them.
MANIFEST = "manifest.json"
READY = "READY"


# Errors of a hub's client for an answer that is no listing: no JSON, too deep, other fields, other types.
NO_LISTING = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)


class TransientError(Exception):
    """A failure that is worth a retry; the message says what happened."""


def no_listing(settings: Settings, error: Exception) -> TransientError:
    """Error for a hub's answer that is no listing."""
    return TransientError(
        f"{settings.address_setting}: {settings.address} answers what is no list of files "
        f"({type(error).__name__}): check the address and the proxy"
    )


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
        """Raise ValueError for an impossible path or size: listings come from the network."""
        if not (isinstance(self.path, str) and self.path.strip("/.") and "\0" not in self.path):
            raise ValueError(f"a file is called {self.path!r}")
        if not (isinstance(self.size, int) and self.size >= 0):
            raise ValueError(f"{self.path} has {self.size!r} bytes")


@dataclass(frozen=True)
class Listing:
    """The files of one revision; `commit` is the revision's commit at that time, where known."""

    files: tuple[RemoteFile, ...]
    commit: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def select(listing: Listing, allow: Sequence[str], ignore: Sequence[str]) -> Listing:
    """Keep files that match one of `allow` (when given) and none of `ignore`; shell patterns.

    Without `allow`, other forms of the weights are left out beside and below safetensors. Raises DeliveryError for a
    path outside the model's folder.
    """
    for file in listing.files:
        if file.path.startswith("/") or ".." in PurePosixPath(file.path).parts:
            raise DeliveryError(f"{file.path}: the source lists a file outside of the model's folder: do not trust it")
    files = tuple(file for file in listing.files if file.path not in {MANIFEST, READY})
    if allow:
        files = tuple(file for file in files if _fits(file.path, allow))
    else:
        folders = {
            _folder(file.path)
            for file in files
            if file.path.endswith(".safetensors") and not _fits(file.path, _DUPLICATES)
        }
        files = tuple(file for file in files if not _is_duplicate(file.path, folders))
    return Listing(tuple(file for file in files if not _fits(file.path, ignore)), listing.commit)


def _is_duplicate(path: str, folders: Collection[str]) -> bool:
    """Return whether a file is another form of weights that are in `folders` as safetensors."""
    folder = _folder(path)
    if folder not in folders and ("" not in folders or _STEP.fullmatch(folder)):
        return False
    return _fits(path, _DUPLICATES)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _fits(path: str, patterns: Sequence[str]) -> bool:
    """Return whether a path, or its last part, matches a pattern: `*.bin` matches in subfolders too."""
    name = PurePosixPath(path).name
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in patterns)
