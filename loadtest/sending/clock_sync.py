"""One time for all load-generating processes: the master's, also where a worker's host has another.

A worker asks the master for its time over Locust's own channel and takes the answer with the shortest round trip. The
answer was given between sending and hearing, so the offset is wrong by half of that round trip at most (Cristian's
algorithm, Distributed Computing 3, 1989). All its time stamps are then the master's.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, cast

import gevent
from gevent.event import AsyncResult

from loadtest.client import clock

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_ASK, _TELL = "loadtest_ask_time", "loadtest_tell_time"
_ROUNDS = 10
_PAUSE_S = 0.01
_TIMEOUT_S = 5.0


def tell_workers(runner: Any) -> None:
    """On the master: answer every worker that asks for the time."""

    def tell(msg: Any, **_: Any) -> None:
        runner.send_message(_TELL, [msg.data, time.time()], msg.node_id)

    runner.register_message(_ASK, tell)


class MasterTime:
    """On a worker: sets this process's clock by the master's."""

    def __init__(self, runner: Any) -> None:
        """`runner` is Locust's, of a worker."""
        self._runner = runner
        self._asked = 0
        self._answer: AsyncResult[float] = AsyncResult()
        self._setting: gevent.Greenlet[..., None] | None = None
        runner.register_message(_TELL, self._on_tell)

    def set_clock(self, then: Callable[[], None], refuse: Callable[[str], None]) -> None:
        """Set the clock, then call `then`; `refuse` with one line if the master does not tell the time.

        Returns at once: the answers come through the caller's own message loop.
        """
        if self._setting is not None:
            self._setting.kill()
        self._setting = gevent.spawn(self._set_clock, then, refuse)

    def _set_clock(self, then: Callable[[], None], refuse: Callable[[str], None]) -> None:
        best = min(filter(None, (self._ask() for _ in range(_ROUNDS))), default=None)
        if best is None:
            refuse(f"the master did not tell the time within {_TIMEOUT_S:g} s: give master and workers one version")
            return
        error, offset = best
        clock.set_offset(offset)
        log.info("Clock: %.6f s behind the master's, known to %.3f ms", offset, error * 1000)
        then()

    def _ask(self) -> tuple[float, float] | None:
        """Half a round trip, and the master's time less ours, in seconds; None when no answer came in time."""
        self._asked += 1
        self._answer = AsyncResult()
        sent, sent_by_us = time.monotonic(), time.time()
        self._runner.send_message(_ASK, self._asked)
        try:
            told = cast("float", self._answer.get(timeout=_TIMEOUT_S))
        except gevent.Timeout:
            return None
        half = (time.monotonic() - sent) / 2
        gevent.sleep(_PAUSE_S)
        return half, told - (sent_by_us + half)

    def _on_tell(self, msg: Any, **_: Any) -> None:
        number, told = msg.data
        if number == self._asked:  # not one that came too late
            self._answer.set(told)
