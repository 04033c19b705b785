"""What a source says it holds, before anything is fetched."""

from dataclasses import dataclass


class TransientError(Exception):
    """A failure that may heal by itself: the text says what happened; trying again is right."""


@dataclass(frozen=True)
class RemoteFile:
    """One file on a source: relative path with forward slashes, bytes, hex digest where the source gives one."""

    path: str
    size: int
    sha256: str | None
