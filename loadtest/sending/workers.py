"""The workers as the master sees them: which are connected, prepared and finished."""

from __future__ import annotations

from locust import runners

import time
from typing import TYPE_CHECKING, Any

from gevent.event import Event

from loadtest.sending.clock_sync import answer_time_requests
from loadtest.sending.worker import ALONE, LEAD_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from loadtest.sending.pacing import LoadSpec
    from loadtest.sending.worker import LoadWorker

# Time for the start message to reach every worker.
_START_LEAD_S = 0.5
_ANSWER_TIMEOUT_S = 60.0


class Workers:
    """The workers of this master; or `local_worker` in a process without a master, called directly."""

    def __init__(self, runner: Any, refuse: Callable[[str], None]) -> None:
        """`runner` is Locust's; `refuse` ends a run that a worker cannot start."""
        self._runner = runner
        self._refuse = refuse
        self.alone = not isinstance(runner, runners.MasterRunner)
        self.local_worker: LoadWorker | None = None
        self._ready: dict[str, int | None] = {}  # worker to the load it has prepared; None is the run itself
        self._last_reports: dict[str, Any] = {}
        self._changed = Event()
        if not self.alone:
            answer_time_requests(runner)
            runner.register_message("loadtest_ready", self._on_ready)
            runner.register_message("loadtest_finished", self._on_finished)
            runner.register_message("loadtest_problem", self._on_problem)

    def new_run(self) -> None:
        """Forget which workers had prepared the last run."""
        self._ready.clear()

    def names(self) -> list[str]:
        """Return the names of the connected processes."""
        if self.alone:
            return [ALONE]
        clients = self._runner.clients
        return [client.id for client in clients.ready + clients.running + clients.spawning]

    def is_there(self, name: str) -> bool:
        """Return whether process `name` is still connected."""
        if self.alone:
            return True
        client = self._runner.clients.get(name)
        return client is not None and client.state != runners.STATE_MISSING

    def prepared(self) -> list[str]:
        """Return the names of the processes that have prepared the run."""
        if self.local_worker is not None:
            return [ALONE] if self.local_worker.prepared else []
        return [name for name in self.names() if name in self._ready]

    def own_report(self) -> Mapping[str, Any] | None:
        """Return the report of `local_worker` since the last call; None if there is a master."""
        return None if self.local_worker is None else self.local_worker.take_report()

    # A run's schedule.

    def start_when_ready(self, dealt: Iterable[str]) -> bool:
        """Start all of `dealt` that are still connected at one time, once each has prepared its share.

        Returns True when they were started.
        """
        there = {name for name in dealt if name in self._runner.clients}
        if not there or not there <= self._ready.keys():
            return False
        self._start(there)
        return True

    def _start(self, names: Iterable[str]) -> float:
        start_at = time.time() + _START_LEAD_S
        for name in names:
            self._runner.send_message("loadtest_start", start_at, name)
        return start_at

    # One load of a search.

    def begin(self, load: LoadSpec, names: list[str]) -> float | None:
        """Have the processes `names` send `load`; return the Unix time of its start, None if none is left.

        If a process goes missing before the start, its share is not sent.
        """
        if self.local_worker is not None:
            start_at = time.time() + LEAD_S
            self.local_worker.begin(load, 0, 1)
            self.local_worker.start_load(start_at)
            return start_at
        for number, name in enumerate(names):
            data = {"load": load.to_wire(), "number": number, "processes": len(names)}
            self._runner.send_message("loadtest_begin", data, name)
        self._wait(lambda: all(self._ready.get(name) == load.number for name in names if self.is_there(name)))
        there = [name for name in names if self.is_there(name)]
        return self._start(there) if there else None

    def end(self, names: Iterable[str]) -> dict[str, Mapping[str, Any] | None]:
        """Stop the load; return the last report of each process, None for one that did not answer."""
        if self.local_worker is not None:
            return {ALONE: self.local_worker.end()}
        return self.collect("loadtest_end", names)

    def collect(self, message: str, names: Iterable[str]) -> dict[str, Mapping[str, Any] | None]:
        """Send `message` to the workers `names`, which makes them stop, and return the last report of each.

        The report is None for a worker that went missing or took longer than 60 s.
        """
        asked = list(names)
        for name in asked:
            self._last_reports.pop(name, None)
            self._runner.send_message(message, None, name)
        self._wait(lambda: all(name in self._last_reports for name in asked if name in self._runner.clients))
        return {name: self._last_reports.pop(name, None) for name in asked}

    def _wait(self, met: Callable[[], bool]) -> None:
        """Wait until `met`, checked at every message, and each second for workers that went missing."""
        deadline = time.monotonic() + _ANSWER_TIMEOUT_S
        while not met() and time.monotonic() < deadline:
            self._changed.clear()
            self._changed.wait(1)

    def _on_ready(self, msg: Any, **_: Any) -> None:
        self._ready[msg.node_id] = msg.data
        self._changed.set()

    def _on_finished(self, msg: Any, **_: Any) -> None:
        self._last_reports[msg.node_id] = msg.data
        self._changed.set()

    def _on_problem(self, msg: Any, **_: Any) -> None:
        self._refuse(f"worker {msg.node_id}: {msg.data}")
