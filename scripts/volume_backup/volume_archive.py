"""Part of scripts/backup that runs in a container, as the volume's owner: a volume to and from a tar stream.

volume_archive.py save       the volume at /volume, to standard output
volume_archive.py check      exit code 0 when no file is in the volume, 3 when one is
volume_archive.py restore    from standard input; the old content is deleted once all has arrived
"""

from __future__ import annotations

import fcntl
import gzip
import shutil
import sys
import tarfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

VOLUME = Path("/volume")
INCOMING = ".incoming"
# Prometheus' lock and list of running queries, and this program's own folder.
LEFT_OUT = {"lock", "queries.active", INCOMING, "lost+found"}
NOT_EMPTY = 3
_BLOCK = 1 << 20


class CopyError(Exception):
    """A failed copy; the message is one line."""


def require_unused(volume: Path) -> None:
    """Raise CopyError while Prometheus holds the lock of its database."""
    lock = volume / "lock"
    if not lock.is_file():
        return
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CopyError("Prometheus still writes to this volume: stop it first") from None


def kept(volume: Path) -> list[Path]:
    """Files and folders of the volume to save."""
    return sorted(path for path in volume.iterdir() if path.name not in LEFT_OUT)


def holds_files(volume: Path) -> bool:
    """Return whether the volume has a file; images such as Caddy's bring empty folders."""
    return any(not found.is_dir() for path in kept(volume) for found in (path, *path.rglob("*")))


def save(volume: Path, out: IO[bytes]) -> None:
    """Write the volume as a compressed tar. Raises CopyError or OSError."""
    require_unused(volume)
    # Prometheus' blocks are compressed already: the fastest level is nearly as small.
    with (
        gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for path in kept(volume):
            tar.add(path, path.name)


def restore(volume: Path, stream: IO[bytes]) -> None:
    """Replace the volume's content by the tar's. Raises CopyError, OSError or tarfile.TarError."""
    require_unused(volume)
    incoming = volume / INCOMING
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    try:
        # tarfile's "r|gz" accepts a truncated stream; gzip detects it.
        with gzip.GzipFile(fileobj=stream) as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
            # The filter refuses paths outside, devices, and links that lead out.
            tar.extractall(incoming, filter="data")
            while packed.read(_BLOCK):
                pass
    except BaseException:
        shutil.rmtree(incoming, ignore_errors=True)
        raise
    for path in kept(volume):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in sorted(incoming.iterdir()):
        path.rename(volume / path.name)
    incoming.rmdir()


def main(arguments: list[str]) -> int:
    """Carry out one command; return the exit code."""
    commands: dict[str, Callable[[], int | None]] = {
        "save": lambda: save(VOLUME, sys.stdout.buffer),
        "check": lambda: NOT_EMPTY if holds_files(VOLUME) else 0,
        "restore": lambda: restore(VOLUME, sys.stdin.buffer),
    }
    try:
        return commands[arguments[0]]() or 0
    except (CopyError, tarfile.TarError, EOFError, zlib.error) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or 'volume'}: {error.strerror or error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
