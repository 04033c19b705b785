"""Holders of a local model: a folder, a tar or a zip archive."""

import io
import os
import posixpath
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol, cast

from delivery.settings import DeliveryError

# Beginnings of files that people give in place of a folder or archive: what it is, and what to do.
_SINGLE_FILES = (
    (
        b"GGUF",
        "is a GGUF file, which vLLM 0.32 does not load: take the model's folder with config.json and safetensors",
    ),
    (b"\x28\xb5\x2f\xfd", "is packed with zstd: unpack it, or pack it as tar.gz or zip"),
    (b"7z\xbc\xaf\x27\x1c", "is packed with 7-Zip: unpack it, or pack it as tar.gz or zip"),
    (b"Rar!", "is packed with RAR: unpack it, or pack it as tar.gz or zip"),
)
_ENCRYPTED = 1  # bit of a zip member's flags
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_DOS = 0  # zip's number of the system that packed it


class Holder(Protocol):
    """Files by path, with forward slashes.

    `faults` are files that cannot be read, with the reason and the fix; they have a size too, maybe a wrong one.
    `random_access` tells whether reading a file's beginning is cheap, and `workers` how many can be read at a time.
    """

    sizes: dict[str, int]
    faults: dict[str, str]
    workers: int
    random_access: bool

    def open(self, path: str) -> IO[bytes]:
        """Open a file; the stream can seek."""
        ...


@contextmanager
def opened(path: Path, setting: str) -> Iterator[Holder]:
    """Open what lies at `path`, which is the value of `setting`. Raises DeliveryError, also for what fails inside."""
    try:
        if path.is_char_device():  # compose.yaml mounts /dev/null where the setting is empty
            raise DeliveryError(f"{setting} is empty: set it to the model's folder or archive on this box")
        if path.is_dir():
            yield _Folder(path)
            return
        with path.open("rb") as file:
            beginning = file.read(16)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield _Zip(archive)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                yield _Tar(tar)
        else:
            raise DeliveryError(f"{setting}: {path} {_single_file(beginning)}")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise DeliveryError(f"{setting}: {path} is damaged ({error}): copy it here again") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile's, for a password or a method that it lacks
        raise DeliveryError(
            f"{setting}: {path} cannot be unpacked ({error}): unpack it, and give the folder"
        ) from error
    except FileNotFoundError as error:
        raise DeliveryError(f"{setting}: {path} is not there: mount the model's folder or archive") from error
    except PermissionError as error:
        raise DeliveryError(f"{setting}: {error.filename or path}: {not_allowed()}") from error


def not_allowed() -> str:
    """Reason and fix for what this process may not read."""
    return (
        f"user {os.getuid()} may not read it: run `chmod -R a+rX FOLDER`, and where SELinux is on "
        "`chcon -Rt container_file_t FOLDER`"
    )


def _single_file(beginning: bytes) -> str:
    for mark, what in _SINGLE_FILES:
        if beginning.startswith(mark):
            return what
    if beginning[8:9] == b"{":  # safetensors: the length of a JSON header, then the header
        return "is one file of weights: give the folder that holds it, with config.json and the tokenizer"
    return "is no folder, tar or zip archive"


class _Folder:
    workers = 2
    random_access = True

    def __init__(self, root: Path) -> None:
        self._root = root
        self.sizes: dict[str, int] = {}
        self.faults: dict[str, str] = {}
        self._seen: set[tuple[int, int]] = set()
        self._walk("")

    def open(self, path: str) -> IO[bytes]:
        return (self._root / path).open("rb")

    def _walk(self, folder: str) -> None:
        """Find files, by way of links too. Raises PermissionError for a folder that may not be read."""
        stat = (self._root / folder).stat()
        if (stat.st_dev, stat.st_ino) in self._seen:  # a link to a folder above
            return
        self._seen.add((stat.st_dev, stat.st_ino))
        for entry in sorted(os.scandir(self._root / folder), key=lambda entry: entry.name):
            path = posixpath.join(folder, entry.name)
            try:
                if entry.is_dir():
                    if not entry.name.startswith("."):  # .git, .cache: never a part of the model
                        self._walk(path)
                elif entry.is_file():
                    self.sizes[path] = entry.stat().st_size
                    if not os.access(self._root / path, os.R_OK):
                        self.faults[path] = not_allowed()
                elif entry.is_symlink():
                    self._broken_link(path)
            except PermissionError:
                self._closed(path)

    def _closed(self, path: str) -> None:
        self.sizes.setdefault(path, 0)
        self.faults[path] = not_allowed()

    def _broken_link(self, path: str) -> None:
        target = str((self._root / path).readlink())
        self.sizes[path] = 0
        if "/blobs/" in target:
            fix = (
                "this is a snapshot in Hugging Face's cache: set MODEL_LOCAL_PATH to the folder models--OWNER--NAME "
                "above it, which holds the blobs too"
            )
        else:
            fix = "copy the folder with `cp -rL`, which follows links, and give the copy"
        self.faults[path] = f"a link to {target}, which is not below MODEL_LOCAL_PATH: {fix}"


class _Zip:
    workers = 1  # one file pointer
    random_access = True

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members = {_slashes(info): info for info in archive.infolist() if not info.is_dir()}
        self.sizes = {path: info.file_size for path, info in self._members.items()}
        self.faults = {
            path: "encrypted, or packed by a method that Python lacks: unpack the archive, and give the folder"
            for path, info in self._members.items()
            if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS
        }

    def open(self, path: str) -> IO[bytes]:
        return self._archive.open(self._members[path])


class _Tar:
    workers = 1  # one file pointer

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        # A compressed one can only be read forwards.
        self.random_access = isinstance(archive.fileobj, io.BufferedReader)
        found = {posixpath.normpath(info.name): info for info in archive}
        self._members: dict[str, tarfile.TarInfo] = {}
        self.sizes: dict[str, int] = {}
        self.faults: dict[str, str] = {}
        for path, info in found.items():
            if info.isfile():
                self._members[path], self.sizes[path] = info, info.size
            elif info.issym() or info.islnk():
                self._link(path, info, found)

    def open(self, path: str) -> IO[bytes]:
        return cast("IO[bytes]", self._archive.extractfile(self._members[path]))  # None: no file

    def _link(self, path: str, info: tarfile.TarInfo, found: dict[str, tarfile.TarInfo]) -> None:
        """Follow one link to a file; a link to a link or a folder is a fault."""
        near = posixpath.dirname(path) if info.issym() else ""
        target = found.get(posixpath.normpath(posixpath.join(near, info.linkname)))
        if target is not None and target.isfile():
            self._members[path], self.sizes[path] = target, target.size
        elif target is None or not target.isdir():
            self.sizes[path] = 0
            self.faults[path] = (
                f"a link to {info.linkname}, which is not in the archive: pack it with `tar -h`, which follows links"
            )


def _slashes(info: zipfile.ZipInfo) -> str:
    """Path of a member; some programs of Windows write backslashes."""
    return info.filename.replace("\\", "/") if info.create_system == _DOS else info.filename
