"""Definition of a target, and helpers that turn bytes into its input."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Hostile:
    """A reader under test: `check` must not raise for any bytes; `seeds` are valid and malformed inputs."""

    check: Callable[[bytes], None]
    seeds: Sequence[bytes] = field(default=())


def split(data: bytes) -> tuple[bytes, list[bytes]]:
    """All bytes but the first, whole and in pieces; the first byte sets the size of the pieces."""
    size = 1 + (data[0] if data else 0)
    rest = data[1:]
    return rest, [rest[at : at + size] for at in range(0, len(rest), size)]


@cache
def scratch() -> Path:
    """A folder in memory for readers that need a path; deleted with the process."""
    shm = Path("/dev/shm")  # noqa: S108  # a folder of its own is made there
    made = tempfile.TemporaryDirectory(prefix="hostile-", dir=shm if shm.is_dir() else None)
    _KEPT.append(made)
    return Path(made.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def scratch_file(name: str, data: bytes) -> Path:
    """Write `data` to a file of that name."""
    path = scratch() / name
    path.write_bytes(data)
    return path


def environment(data: bytes, names: Sequence[str]) -> dict[str, str]:
    """Settings from lines `N=value`, where N is a name of `names`, or its index as a character."""
    env = {}
    for line in data.decode("utf-8", "replace").replace("\0", "").split("\n"):
        name, _, value = line.partition("=")
        if name in names:
            env[name] = value
        elif name and len(name) == 1 and ord(name) < 0x3000:
            env[names[ord(name) % len(names)]] = value
    return env
