"""The models volume: paths, links, space and lock.

    /models/.store/<source>/<owner>/<name>/<revision>/   the files, manifest.json, READY
    /models/<owner>/<name>                               link to the wanted revision

Every revision has a folder of its own, where an interrupted download continues. The link is replaced atomically and
only for a READY folder: a reader of `/models/<owner>/<name>` sees a complete model or none.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from stat import S_ISREG
from urllib.parse import quote

from .listing import RemoteFile
from .settings import DeliveryError, Settings

STORE = ".store"
SCRATCH = ".scratch"  # for the clients' own state; deleted after a delivery


def folder_of(settings: Settings) -> Path:
    """The folder of the wanted revision."""
    revision = quote(settings.revision, safe="")  # a branch name may hold slashes
    return settings.volume / STORE / settings.source / settings.model_id / revision


def link_of(settings: Settings) -> Path:
    """The wanted model's path for the engine."""
    return settings.volume / settings.model_id


def link(settings: Settings) -> None:
    """Point `/models/<owner>/<name>` at the wanted revision's folder, atomically. Raises DeliveryError."""
    place = link_of(settings)
    target = os.path.relpath(folder_of(settings), place.parent)
    if place.is_symlink() and str(place.readlink()) == target:
        return
    require_place(settings)
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(place)
    sync(place.parent)


def require_place(settings: Settings) -> None:
    """Raise DeliveryError when the model's link or its files cannot come to where they belong on the volume."""
    place = link_of(settings)
    if place.exists() and not place.is_symlink():
        raise DeliveryError(
            f"MODEL_ID: {place} exists and is not a link made by this container: move it away or use a new volume"
        )
    for folder in (place.parent, *folder_of(settings).parents):
        if folder == settings.volume:
            return
        if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise DeliveryError(
                f"MODEL_ID: {folder} is no folder that user {os.getuid()} may write to: move it away, or give it to "
                "that user with chown"
            )


def bytes_in(folder: Path) -> int:
    """Bytes of all files in a folder, partial ones too."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a client may rename files meanwhile
            stat = path.lstat()
            total += stat.st_size if S_ISREG(stat.st_mode) else 0
    return total


def sweep(folder: Path, files: Iterable[RemoteFile]) -> None:
    """Remove files that are not in the listing, nor partial downloads of one that is."""
    kept = {name for file in files for name in (file.path, f"{file.path}.incomplete")}
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in kept:
            path.unlink()


def require_writable(volume: Path) -> None:
    """Raise DeliveryError unless the volume is writable."""
    probe = volume / ".writable"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DeliveryError(
            f"volume {volume}: cannot write ({error.strerror}): mount it read-write and owned by user {os.getuid()}"
        ) from error


def require_space(folder: Path, *, missing: int) -> None:
    """Raise DeliveryError unless `missing` bytes and a margin fit on the volume."""
    needed = missing + margin(missing)
    free = free_bytes(folder)
    if free < needed:
        raise DeliveryError(
            f"volume: {megabytes(free)} free, {megabytes(needed)} needed for the missing {megabytes(missing)} and a "
            "margin: free space on the disk under Docker's volumes, or run `docker compose run --rm model prune`"
        )


def margin(missing: int) -> int:
    """Bytes to leave free: 1 % of the download, at least 32 MB."""
    return max(missing // 100, 32_000_000) if missing else 0


def free_bytes(folder: Path) -> int:
    """Free bytes for an ordinary user on the folder's file system."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


@contextlib.contextmanager
def locked(volume: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the volume's lock; the kernel frees it when the process ends."""
    with (volume / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting: another container is writing to this volume")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def megabytes(count: int) -> str:
    """Bytes as text in MB or GB (decimal)."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def sync(path: Path) -> None:
    """Write a file or folder through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
