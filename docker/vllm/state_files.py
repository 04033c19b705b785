"""State that the engine container's programs share, as files in its tmpfs."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path("/tmp")  # noqa: S108  # the container's own tmpfs
# The engine has answered each kind of request since its start.
ANSWERED = _FOLDER / "headroom-chat-answered"
# The engine has not yet; holds what it is asked for. The gate repeats this path too.
WARMING_UP = _FOLDER / "headroom-warming-up"
# Kinds of request that have ended an engine of this container, one a line; kept when another starts.
ENDED_BY = _FOLDER / "headroom-ended-by"
# The engine makes no progress; holds the watchdog's message.
STALLED = _FOLDER / "headroom-stalled"
# The container is stopping. The gate, which must not import this module, repeats the path.
STOPPING = _FOLDER / "headroom-stopping"


def clear() -> None:
    """Delete all files, before another engine starts."""
    for marker in (ANSWERED, WARMING_UP, STALLED, STOPPING):
        marker.unlink(missing_ok=True)
