"""Closed-loop user: its connection, and its pauses after failures, without which users would flood a failing server."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, cast

from gevent.event import AsyncResult

if TYPE_CHECKING:
    from loadtest.client.connection import Capture, Connection
    from loadtest.client.request_record import RequestRecord

# The pauses of the openai client between its tries (openai/_constants.py): the first one, and the longest.
_FIRST_S, _LONGEST_S = 0.5, 8.0
# ... of which up to this share is taken off at random, so that users do not come back in step (openai/_base_client.py).
_JITTER = 0.25
# Duration up to which a failure came at once. A slower one cannot flood: its user was waiting.
_AT_ONCE_S = 1.0
# Longest Retry-After that is waited for; a longer one would take the user out of the test.
LONGEST_RETRY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Pause:
    """A user's pause after `record` failed; `asked`: by the server's Retry-After."""

    seconds: float
    asked: bool
    record: RequestRecord


class Backoff:
    """Pauses of one user: as the server asks, else growing with each failure that came at once, until a success."""

    def __init__(self, seed: str) -> None:
        """`seed` repeats the random part."""
        self._random = Random(seed)  # noqa: S311  # repeatable
        self._failures = 0

    @property
    def failing(self) -> bool:
        """True if the last request was followed by a pause."""
        return self._failures > 0

    def after(self, record: RequestRecord) -> Pause | None:
        """Return the pause after a request that has ended; None for none."""
        if not record.failed:
            self._failures = 0
            return None
        asked = record.retry_after
        if asked is None and record.duration > _AT_ONCE_S:
            return None
        self._failures += 1
        if asked is not None:
            return Pause(min(asked, LONGEST_RETRY_AFTER_S), True, record)
        longest = min(_FIRST_S * 2.0 ** min(self._failures - 1, 10), _LONGEST_S)
        return Pause(longest * (1 - _JITTER * self._random.random()), False, record)


class ClosedLoopUser:
    """One user: sends its next request when its last one has ended and its pause, if any, is over."""

    def __init__(self, connection: Connection, seed: str) -> None:
        """`connection` need not be open; `seed` is that of the pauses."""
        self.connection = connection
        self._backoff = Backoff(seed)
        self._judged: deque[AsyncResult[RequestRecord]] = deque()
        self._in_doubt = False

    def expect(self) -> AsyncResult[RequestRecord]:
        """Return where to put the record of the request that is sent next."""
        result: AsyncResult[RequestRecord] = AsyncResult()
        self._judged.append(result)
        return result

    def note(self, capture: Capture) -> None:
        """Note the end of the request: if it looks bad, `next_pause` waits for its record."""
        self._in_doubt = not capture.looks_good

    def next_pause(self) -> Pause | None:
        """Return the pause before the next request, None for none.

        Records come later than the responses. They are waited for only after a failure: a user whose requests end well
        sends at once, and one whose answer holds an error inside may send once more before it pauses.
        """
        pause = None
        while self._judged and (self._judged[0].ready() or self._in_doubt or self._backoff.failing):
            pause = self._backoff.after(cast("RequestRecord", self._judged.popleft().get()))
        return pause
