"""Folders for what the engine compiles and runs, on the volume engine-cache: HOME, TRITON_CACHE_DIR, TMPDIR.

Triton loads the libraries that it compiles from TMPDIR, and a swarm's /tmp does not let anything be executed.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping


# For a job that runs as a user who may not write to the volume; Compose lets it be executed from.
ELSEWHERE = Path("/tmp")  # noqa: S108  # the container's own tmpfs


def prepare(env: MutableMapping[str, str] = os.environ) -> None:
    """Make the folders, in /tmp where the volume is not this user's; TMPDIR becomes this container's own, empty one."""
    for name in ("HOME", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT"):
        if path := env.get(name):
            env[name] = str(_writable(Path(path)))
    if path := env.get("TMPDIR"):
        own = socket.gethostname()  # the container's id
        shared = _writable(Path(path).parent if Path(path).name == own else Path(path))
        claim(shared, own)
        # Of a former engine in this container.
        shutil.rmtree(shared / own, ignore_errors=True)
        (shared / own).mkdir()
        env["TMPDIR"] = str(shared / own)


def _writable(folder: Path) -> Path:
    with contextlib.suppress(OSError):  # judged below
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK | os.X_OK):
        return folder
    instead = ELSEWHERE / f"headroom-{folder.name}"
    instead.mkdir(exist_ok=True)
    return instead


@functools.cache
def claim(shared: Path, own: str) -> int:
    """Claim a folder of `shared` until this process ends, and delete those that nobody claims any more."""
    descriptor = _lock(shared / f"{own}.lock")
    for lock in shared.glob("*.lock"):
        if lock.stem != own:
            _delete_unclaimed(lock)
    return descriptor


def _lock(file: Path) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Another container may have deleted it between the two calls.
        if file.exists() and os.fstat(descriptor).st_ino == file.stat().st_ino:
            return descriptor
        os.close(descriptor)


def _delete_unclaimed(lock: Path) -> None:
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        return  # another container deletes it, or it belongs to another user
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        lock.unlink(missing_ok=True)
    except BlockingIOError:
        pass  # its container runs
    finally:
        os.close(descriptor)
