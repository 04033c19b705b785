"""The sending side of a run in one process: request numbers, connections, and what becomes of the captures."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, Any

import gevent
from gevent.queue import JoinableQueue

from loadtest.client.connection import Capture, Connection, End
from loadtest.client.outcome import judge
from loadtest.client.target import build_request
from loadtest.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtest.options import RunOptions
    from loadtest.record import RequestRecord
    from loadtest.workload import RequestSpec, Workload

# A refused connection comes back at once: without a pause, users would only burn the client's CPU.
_PAUSE_AFTER_CONNECT_S = 1.0
# Captures that wait to be read; full, it holds the users back instead of filling the memory.
_BACKLOG = 10_000


class Session:
    """One run in one process. `on_record` is called for every request that has ended, in a greenlet of its own."""

    def __init__(
        self,
        options: RunOptions,
        workload: Workload,
        indices: Iterator[int],
        on_record: Callable[[RequestRecord], None],
    ) -> None:
        """Start the greenlet that reads captures; `indices` are the numbers of this process's requests."""
        self._options = options
        self._workload = workload
        self._indices = indices
        self._on_record = on_record
        self._heads = {endpoint: options.target.head(endpoint) for endpoint in ("chat", "completions")}
        self._tls = ssl.create_default_context() if options.target.tls else None
        self._captures: JoinableQueue[tuple[RequestSpec, Capture]] = JoinableQueue(maxsize=_BACKLOG)
        self._fresh = Store(options.slo)
        self._cpu_reported = time.process_time()
        self._reported_at = time.monotonic()
        self.in_flight = 0
        self._reader = gevent.spawn(self._read_captures)

    def connect(self) -> Connection:
        """Return a connection to the server under test, not yet open."""
        return Connection(self._options.target, self._tls)

    def send_next(self, connection: Connection) -> None:
        """Send this process's next request and wait for its end. Killed meanwhile, it counts as cancelled."""
        spec = self._workload.request(next(self._indices))
        request = build_request(self._heads[spec.endpoint], spec.body)
        capture = Capture()
        self.in_flight += 1
        try:
            connection.exchange(request, self._options.request_timeout, capture)
        finally:
            self.in_flight -= 1
            self._captures.put((spec, capture))
        if capture.end is End.CONNECT:
            gevent.sleep(_PAUSE_AFTER_CONNECT_S)

    def _read_captures(self) -> None:
        """Read one capture at a time, and let the event loop look at the sockets in between."""
        while True:
            spec, capture = self._captures.get()
            try:
                record = judge(spec, capture, stream=self._options.workload.stream)
                self._fresh.add(record)
                self._on_record(record)
            finally:
                self._captures.task_done()
            gevent.sleep(0)

    def drain(self, timeout_s: float = 60.0) -> bool:
        """Wait until every capture is read; False if that took longer than `timeout_s`."""
        return bool(self._captures.join(timeout=timeout_s))

    def close(self) -> None:
        """Stop reading captures; `drain` first."""
        self._reader.kill()

    def take_report(self) -> dict[str, Any]:
        """Return what happened since the last call, for `Results.add_report`."""
        fresh, self._fresh = self._fresh, Store(self._options.slo)
        now, cpu = time.monotonic(), time.process_time()
        report = {
            "store": fresh.to_wire(),
            "in_flight": self.in_flight,
            "cpu_s": cpu - self._cpu_reported,
            "wall_s": now - self._reported_at,
        }
        self._cpu_reported, self._reported_at = cpu, now
        return report
