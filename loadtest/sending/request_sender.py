"""Sender of one process's share of a run: sends requests when they are due and turns captures into records."""

from __future__ import annotations

import gc
import logging
import time
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import gevent
from gevent.event import Event
from gevent.pool import Group
from gevent.queue import JoinableQueue

from loadtest.client.access import MOST_REDIRECTS, redirect_location, tls_context
from loadtest.client.clock import now_ns
from loadtest.client.connection import Capture, Connection, End
from loadtest.client.outcome import judge
from loadtest.client.target import build_request
from loadtest.results.csv_rows import to_row
from loadtest.results.failure_texts import without_varying
from loadtest.results.totals import RunTotals
from loadtest.sending.closed_loop_user import ClosedLoopUser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gevent.event import AsyncResult

    from loadtest.client.request_record import RequestRecord
    from loadtest.results.totals import Totals
    from loadtest.sending.closed_loop_user import Pause
    from loadtest.settings.run_options import RunOptions
    from loadtest.workload import RequestSpec, Workload

log = logging.getLogger(__name__)

_sleep = gevent.sleep

# Seconds between two lines that say that users pause.
_SAY_PAUSES_EVERY_S = 10.0
# Unread captures at which senders are blocked, so that memory stays bounded.
_BACKLOG = 10_000
_DRAIN_TIMEOUT_S = 60.0
# For how long captures are read without a look at the sockets.
_POLL_EVERY_S = 0.0005


# What was sent and received, the Unix time at which it was due in open loop, and who waits for the record.
_Ended: TypeAlias = "tuple[RequestSpec, Capture, float | None, AsyncResult[RequestRecord] | None]"


class RequestSender:
    """Sends one load from one process, measures it and reports it."""

    def __init__(
        self,
        options: RunOptions,
        workload: Workload,
        on_record: Callable[[RequestRecord], None],
        *,
        first_measured: int,
        keep_rows: bool,
    ) -> None:
        """Start the greenlet that reads captures; nothing is sent yet.

        `on_record` is called for every request that has ended, from that greenlet. Requests are measured from number
        `first_measured` on. `keep_rows`: report a row per request too.
        """
        self._options = options
        self._first_measured = first_measured
        self._keep_rows = keep_rows
        self._workload = workload
        self._on_record = on_record
        self._heads = {endpoint: options.target.head(endpoint) for endpoint in ("chat", "completions")}
        self._tls = tls_context(options.target)
        self._captures: JoinableQueue[_Ended] = JoinableQueue(maxsize=_BACKLOG)
        self._measured = RunTotals(options.slo)
        self._unmeasured = RunTotals(options.slo)
        self._rows: list[tuple[Any, ...]] = []
        self._cpu_reported = time.process_time()
        self._reported_at = time.monotonic()
        self._idle: list[Connection] = []
        self._greenlets: Group = Group()
        self._numbers: Iterator[tuple[int | None, int | None]] | None = None
        self._pause_seed = ""
        self._users = 0
        self._pauses = 0
        self._say_pauses_at = 0.0  # monotonic
        self.in_flight = 0
        self.users_may_send = Event()  # set once the clock is synchronised
        self.sent_all = Event()  # all requests of this process
        self.ended = Event()  # ... and all have ended
        # Exclude what exists now from garbage collection, whose pauses delay reads.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._reader = gevent.spawn(self._read_captures)

    # Closed loop: each user sends one request after the other.

    def set_numbers(self, numbers: Iterator[int], pause_seed: str) -> None:
        """Set the numbers of the requests that `send_next` sends; `pause_seed` repeats the random part of pauses."""
        self._numbers = pairwise(chain(numbers, (None,)))
        self._pause_seed = pause_seed

    def connect(self) -> Connection:
        """Return a connection to the server under test, not yet open."""
        return Connection(self._options.target, self._tls)

    def add_user(self) -> ClosedLoopUser:
        """Return a new user for `send_next` and `pause`."""
        self._users += 1
        return ClosedLoopUser(self.connect(), f"{self._pause_seed}:{self._users}")

    def send_next(self, user: ClosedLoopUser) -> bool:
        """Send this process's next request and wait for its end; return False if there is none left.

        If the greenlet is killed meanwhile, the request counts as cancelled.
        """
        assert self._numbers is not None  # noqa: S101  # set_numbers is called before users start
        number, following = next(self._numbers, (None, None))
        if number is None:
            self._mark_all_sent()
            return False
        if following is None:
            self.sent_all.set()  # known now: the end of the run waits for no pause after the last request
        user.note(self._send(user.connection, number, None, user.expect()))
        return True

    def pause(self, user: ClosedLoopUser) -> None:
        """Wait as long as `user` has to before its next request; a killed greenlet stops at once."""
        pause = user.next_pause()
        if pause is None:
            return
        totals = self._totals_of(pause.record)
        totals.pauses += 1
        totals.retry_after_pauses += pause.asked
        self._say(pause)
        began = time.monotonic()
        try:
            _sleep(pause.seconds)
        finally:
            self._totals_of(pause.record).paused_s += time.monotonic() - began

    def _say(self, pause: Pause) -> None:
        self._pauses += 1
        now = time.monotonic()
        if now < self._say_pauses_at:
            return
        self._say_pauses_at = now + _SAY_PAUSES_EVERY_S
        log.warning(
            "Users pause after failures; pause %d, of %.1f s%s, comes after %s: %s",
            self._pauses,
            pause.seconds,
            " as Retry-After asks" if pause.asked else "",
            pause.record.outcome.value,
            without_varying(pause.record.detail),
        )

    def run_users(self, users: int, over_s: float) -> None:
        """Send in closed loop from `users` greenlets, which start one by one over `over_s` seconds."""
        for user in range(users):
            self._greenlets.spawn(self._send_closed_loop, over_s * user / users)

    def _send_closed_loop(self, after_s: float) -> None:
        gevent.sleep(after_s)
        user = self.add_user()
        try:
            while self.send_next(user):
                self.pause(user)
        finally:
            user.connection.close()

    # Open loop: one greenlet runs the schedule, each request has its own.

    def open_ahead(self, connection: Connection) -> None:
        """Open a connection ahead of the schedule; a failure is left to the request that needs it."""
        try:
            connection.open()
        except OSError:
            return
        self._idle.append(connection)

    def run_schedule(self, due: Iterator[tuple[int, float]], start_at: float) -> None:
        """Send each (request number, seconds since `start_at`) when due, however many are in flight.

        `start_at` is Unix time in seconds.
        """
        self._greenlets.spawn(self._run_schedule, due, start_at)

    def _run_schedule(self, due: Iterator[tuple[int, float]], start_at: float) -> None:
        origin = time.monotonic() + start_at - now_ns() * 1e-9
        for number, seconds in due:
            wait = origin + seconds - time.monotonic()
            if wait > 0:
                gevent.sleep(wait)
            self._greenlets.spawn(self._send_due, number, start_at + seconds)
        gevent.sleep(0)  # lets the last greenlet start, so that its request is in flight
        self._mark_all_sent()

    def _send_due(self, number: int, due_at: float) -> None:
        connection = self._idle.pop() if self._idle else self.connect()
        if self._send(connection, number, due_at).end is End.CONNECT:
            connection.close()
        else:
            self._idle.append(connection)

    def cancel(self) -> None:
        """Stop this sender's greenlets; their requests in flight count as cancelled."""
        self._greenlets.kill()
        self.ended.set()
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    # Both loops.

    def _send(
        self,
        connection: Connection,
        number: int,
        due_at: float | None,
        judged: AsyncResult[RequestRecord] | None = None,
    ) -> Capture:
        spec = self._workload.request(number)
        timeout_s = self._options.request_timeout
        capture = Capture()
        self.in_flight += 1
        try:
            connection.exchange(build_request(self._heads[spec.endpoint], spec.body), timeout_s, capture)
            for _ in range(MOST_REDIRECTS):
                location = redirect_location(capture)
                if location is None or not self._follow_redirect(spec.endpoint, location):
                    break
                capture = Capture()
                connection.exchange(build_request(self._heads[spec.endpoint], spec.body), timeout_s, capture)
        finally:
            self.in_flight -= 1
            self._captures.put((spec, capture, due_at, judged))
            self._check_ended()
        return capture

    def _follow_redirect(self, endpoint: str, location: str) -> bool:
        """Send all requests of `endpoint` to `location` from now on; False if that is another server."""
        target = self._options.target
        path = target.redirect(target.path(endpoint), location)
        if path is None:
            return False
        head = target.head(endpoint, path)
        if head != self._heads[endpoint]:
            log.warning("%s is redirected to %s: sent there from now on", target.path(endpoint), path.partition("?")[0])
            self._heads[endpoint] = head
        return True

    def _mark_all_sent(self) -> None:
        self.sent_all.set()
        self._check_ended()

    def _check_ended(self) -> None:
        if self.sent_all.is_set() and not self.in_flight:
            self.ended.set()

    def _read_captures(self) -> None:
        """Read one capture at a time, and let the event loop poll the sockets every now and then."""
        polled_at = time.monotonic()
        while True:
            spec, capture, due_at, judged = self._captures.get()
            try:
                record = self._read(spec, capture, due_at)
                if judged is not None:
                    judged.set(record)
            finally:
                self._captures.task_done()
            if time.monotonic() - polled_at > _POLL_EVERY_S:
                _poll_sockets()
                polled_at = time.monotonic()

    def _read(self, spec: RequestSpec, capture: Capture, due_at: float | None) -> RequestRecord:
        record = judge(spec, capture, stream=self._options.workload.stream, due_at=due_at, yield_to_loop=_poll_sockets)
        measured = spec.index >= self._first_measured
        totals = self._measured if measured else self._unmeasured
        totals.add(record)
        if self._keep_rows:
            self._rows.append(to_row(record, measured=measured, good=totals.is_good(record)))
        self._on_record(record)
        return record

    def _totals_of(self, record: RequestRecord) -> Totals:
        run_totals = self._measured if record.index >= self._first_measured else self._unmeasured
        return run_totals.totals(record.endpoint)

    def drain(self) -> bool:
        """Wait until every capture is read; return False if that takes longer than 60 s."""
        return bool(self._captures.join(timeout=_DRAIN_TIMEOUT_S))

    def close(self) -> None:
        """Stop sending and reading captures; call `drain` first."""
        self.cancel()
        self._reader.kill()

    def take_report(self) -> dict[str, Any]:
        """Return the results since the last call, for `RunResults.add_report`."""
        now, cpu = time.monotonic(), time.process_time()
        report = {
            "measured": self._measured.to_wire(),
            "unmeasured": self._unmeasured.to_wire(),
            "rows": self._rows,
            "in_flight": self.in_flight,
            "ended": self.ended.is_set() and self._captures.unfinished_tasks == 0,
            "cpu_s": cpu - self._cpu_reported,
            "wall_s": now - self._reported_at,
        }
        self._measured, self._unmeasured = RunTotals(self._options.slo), RunTotals(self._options.slo)
        self._rows = []
        self._cpu_reported, self._reported_at = cpu, now
        return report


def _poll_sockets() -> None:
    """Let the event loop poll once. sleep(0) would not: gevent runs such callbacks in batches between two polls."""
    gevent.sleep(1e-6)
