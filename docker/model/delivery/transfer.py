"""Transfers single files: hashed while written, continued after an interruption, compared with the listing.

For sources whose client lacks part of this.
"""

import errno
import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO

from .listing import RemoteFile, TransientError
from .log import say
from .settings import DeliveryError

INCOMPLETE = ".incomplete"
_BLOCK = 1 << 20
_TRIES = 3  # a retry heals a wrong byte on the way, never a wrong source
_GIT_PREFIX = "blob {}\0"

# Writes one file from the stream's position to the end.
Writer = Callable[[RemoteFile, "HashingFile"], None]


class HashingFile(io.RawIOBase):
    """A file opened for appending that computes the SHA-256 of its whole content."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file: IO[bytes] = path.open("a+b", buffering=0)
        self._digest = hashlib.sha256()
        self._file.seek(0)
        while block := self._file.read(_BLOCK):
            self._digest.update(block)

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        """Append data."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += self._file.write(view[done:])
        self._digest.update(view)
        return done

    def tell(self) -> int:
        """Bytes in the file."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Accept the current position, or 0, which empties the file: the hash allows nothing else."""
        if (offset, whence) == (0, io.SEEK_SET):
            self._file.truncate(0)
            self._file.seek(0)
            self._digest = hashlib.sha256()
        elif (offset, whence) != (self.tell(), io.SEEK_SET):
            raise io.UnsupportedOperation(f"seek to {offset}")
        return self.tell()

    def truncate(self, size: int | None = None) -> int:
        """Accept the current size only."""
        if size not in (None, self.tell()):
            raise io.UnsupportedOperation(f"truncate to {size}")
        return self.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    @property
    def sha256(self) -> str:
        """Hex digest of all bytes so far."""
        return self._digest.hexdigest()


def place_all(
    files: Sequence[RemoteFile], folder: Path, write: Writer, *, workers: int, placed: dict[str, str]
) -> None:
    """Transfer every file into `folder`, `workers` at a time.

    `placed` maps finished files to their SHA-256 and is added to, so that a retry skips them. Raises TransientError,
    after all other files, where a retry may help, and DeliveryError at once where it cannot.
    """
    pool = ThreadPoolExecutor(workers)
    futures = {pool.submit(place, file, folder, write): file.path for file in files if file.path not in placed}
    transient = None
    for future in as_completed(futures):
        error = future.exception()
        if error is None:
            placed[futures[future]] = future.result()
        elif isinstance(error, TransientError):
            transient = error
        else:
            pool.shutdown(wait=False, cancel_futures=True)  # running transfers end with the process
            raise error
    pool.shutdown()
    if transient is not None:
        raise transient


def place(file: RemoteFile, folder: Path, write: Writer) -> str:
    """Transfer one file into `folder`, continuing a partial one; return its SHA-256. Raises like `place_all`."""
    target = folder / file.path
    partial = target.with_name(target.name + INCOMPLETE)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.replace(partial)  # an earlier run's file is compared like a new one
    for _ in range(_TRIES):
        if partial.exists() and partial.stat().st_size > file.size:
            partial.unlink()
        digest = _fill(file, partial, write)
        if (size := partial.stat().st_size) < file.size:
            raise TransientError(f"{file.path}: ended after {size} of {file.size} bytes")
        if _is_right(file, partial, digest):
            partial.replace(target)
            return digest
        say(f"{file.path}: the bytes are not those that the source lists; fetching it again")
        partial.unlink()
    raise DeliveryError(
        f"{file.path}: the source keeps giving other bytes than it lists: try another mirror or revision"
    )


def _fill(file: RemoteFile, partial: Path, write: Writer) -> str:
    with HashingFile(partial) as stream:
        try:
            if stream.tell() < file.size:
                write(file, stream)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DeliveryError(no_space(file.path)) from error
            raise
        return stream.sha256


def _is_right(file: RemoteFile, partial: Path, digest: str) -> bool:
    if partial.stat().st_size != file.size:
        return False
    if file.sha256 is not None:
        return digest == file.sha256
    return file.git_sha1 is None or _git_sha1(partial, file.size) == file.git_sha1


def _git_sha1(path: Path, size: int) -> str:
    digest = hashlib.sha1(_GIT_PREFIX.format(size).encode(), usedforsecurity=False)  # an id, no signature
    digest.update(path.read_bytes())  # small: large files have a SHA-256
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def no_space(path: str) -> str:
    """The message for a volume that became full."""
    return f"{path}: the volume is full: free space on the disk under Docker's volumes and run this again to go on"
