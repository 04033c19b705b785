"""Brings single files into a folder: hashed while they are written, continued after an interruption, compared.

For sources whose own client does not do all of it.
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
_TRIES = 3  # a wrong byte on the way heals with the second try; a source that is wrong itself never does
_GIT_PREFIX = "blob {}\0"

# Writes the rest of one file, from the stream's position to the end.
Writer = Callable[[RemoteFile, "HashingFile"], None]


class HashingFile(io.RawIOBase):
    """A file open for writing at its end that knows the SHA-256 of all it holds, what it held before included."""

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
        """Only where it stands already, or to the start, which forgets everything: nothing else could be hashed."""
        if (offset, whence) == (0, io.SEEK_SET):
            self._file.truncate(0)
            self._file.seek(0)
            self._digest = hashlib.sha256()
        elif (offset, whence) != (self.tell(), io.SEEK_SET):
            raise io.UnsupportedOperation(f"seek to {offset}")
        return self.tell()

    def truncate(self, size: int | None = None) -> int:
        """Only at its end, where it changes nothing."""
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
    """Bring every file into `folder`, some at a time.

    `placed` holds the SHA-256 of the files that are done, by path, and is added to: a file is read and compared once,
    however often this is called. Raises TransientError, when all others are done, where another try may help, and
    DeliveryError at once where none can.
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
            pool.shutdown(wait=False, cancel_futures=True)  # what still runs ends with the process
            raise error
    pool.shutdown()
    if transient is not None:
        raise transient


def place(file: RemoteFile, folder: Path, write: Writer) -> str:
    """Bring one file into `folder`, going on from what is there; its SHA-256. Raises as `place_all`."""
    target = folder / file.path
    partial = target.with_name(target.name + INCOMPLETE)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.replace(partial)  # what an earlier run left is compared like anything else
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
    digest = hashlib.sha1(_GIT_PREFIX.format(size).encode(), usedforsecurity=False)  # a name, no signature
    digest.update(path.read_bytes())  # only small files have no better digest
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def no_space(path: str) -> str:
    """The line for a volume that filled up on the way."""
    return f"{path}: the volume is full: free space on the disk under Docker's volumes and run this again to go on"
