"""Files by which the engine container's programs tell each other how things stand; in its own tmpfs."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path("/tmp")  # noqa: S108  # the container's own tmpfs
# The health check has had its first token since the engine's start.
ANSWERED = _FOLDER / "headroom-chat-answered"
# The watchdog has seen no progress for a while; holds its words.
STALLED = _FOLDER / "headroom-stalled"
# The container was told to stop: the gate takes no new requests (it has this path itself; it imports nothing of ours).
STOPPING = _FOLDER / "headroom-stopping"


def clear() -> None:
    """Forget everything: another engine starts."""
    for marker in (ANSWERED, STALLED, STOPPING):
        marker.unlink(missing_ok=True)
