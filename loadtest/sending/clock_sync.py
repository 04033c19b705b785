"""Clock synchronisation: all workers use the master's time, also if their hosts' clocks differ.

A worker requests the master's time over Locust's own channel and takes the reply with the shortest round trip. The
master replied at some moment of that round trip, so the offset is wrong by half of it at most (Cristian's algorithm,
Distributed Computing 3, 1989). All time stamps of the worker are then in the master's time.
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

_TIME_REQUEST, _TIME_REPLY = "loadtest_time_request", "loadtest_time_reply"
_ROUNDS = 10
_PAUSE_S = 0.01
_TIMEOUT_S = 5.0


def answer_time_requests(runner: Any) -> None:
    """Reply with the master's time to every worker that requests it. `runner` is the master's."""

    def reply(msg: Any, **_: Any) -> None:
        runner.send_message(_TIME_REPLY, [msg.data, time.time()], msg.node_id)

    runner.register_message(_TIME_REQUEST, reply)


class MasterTime:
    """Sets a worker's clock to the master's."""

    def __init__(self, runner: Any) -> None:
        """`runner` is the worker's Locust runner."""
        self._runner = runner
        self._request_number = 0
        self._reply: AsyncResult[float] = AsyncResult()
        self._greenlet: gevent.Greenlet[..., None] | None = None
        runner.register_message(_TIME_REPLY, self._on_reply)

    def set_clock(self, then: Callable[[], None], refuse: Callable[[str], None]) -> None:
        """Set the clock, then call `then`; call `refuse` with one line if the master does not reply.

        Returns at once, because the replies come through the caller's own message loop.
        """
        if self._greenlet is not None:
            self._greenlet.kill()
        self._greenlet = gevent.spawn(self._set_clock, then, refuse)

    def _set_clock(self, then: Callable[[], None], refuse: Callable[[str], None]) -> None:
        best = min(filter(None, (self._request_time() for _ in range(_ROUNDS))), default=None)
        if best is None:
            refuse(f"the master did not tell the time within {_TIMEOUT_S:g} s: give master and workers one version")
            return
        error, offset = best
        clock.set_offset(offset)
        log.info("Clock: %.6f s behind the master's, known to %.3f ms", offset, error * 1000)
        then()

    def _request_time(self) -> tuple[float, float] | None:
        """Return (half a round trip, master's time minus ours) in seconds; None if no reply came in time."""
        self._request_number += 1
        self._reply = AsyncResult()
        sent, sent_by_us = time.monotonic(), time.time()
        self._runner.send_message(_TIME_REQUEST, self._request_number)
        try:
            master_time = cast("float", self._reply.get(timeout=_TIMEOUT_S))
        except gevent.Timeout:
            return None
        half = (time.monotonic() - sent) / 2
        gevent.sleep(_PAUSE_S)
        return half, master_time - (sent_by_us + half)

    def _on_reply(self, msg: Any, **_: Any) -> None:
        number, master_time = msg.data
        if number == self._request_number:  # a late reply to an earlier request is dropped
            self._reply.set(master_time)
