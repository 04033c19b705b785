"""The processes that send load, as the one that collects their results sees them."""

from __future__ import annotations

from locust import runners

import time
from typing import TYPE_CHECKING, Any

from gevent.event import Event

from loadtest.sending.clock_sync import tell_workers
from loadtest.sending.worker import ALONE, LEAD_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from loadtest.sending.pacing import LoadSpec
    from loadtest.sending.worker import LoadWorker

# Time for the message with the common start to reach every worker.
_START_LEAD_S = 0.5
_FINISH_TIMEOUT_S = 60.0


class Workers:
    """The workers of this master, or this process alone: then `sender` is set, and messages are calls."""

    def __init__(self, runner: Any, refuse: Callable[[str], None]) -> None:
        """`refuse` ends a run that a worker cannot start."""
        self._runner = runner
        self._refuse = refuse
        self.alone = not isinstance(runner, runners.MasterRunner)
        self.sender: LoadWorker | None = None
        self._ready: dict[str, int | None] = {}  # worker to the load that it has prepared; None is the run itself
        self._handed_over: dict[str, Any] = {}
        self._changed = Event()
        if not self.alone:
            tell_workers(runner)
            runner.register_message("loadtest_ready", self._on_ready)
            runner.register_message("loadtest_finished", self._on_finished)
            runner.register_message("loadtest_problem", self._on_problem)

    def new_run(self) -> None:
        """Forget what was prepared for the last run."""
        self._ready.clear()

    def names(self) -> list[str]:
        """The processes that are there."""
        if self.alone:
            return [ALONE]
        clients = self._runner.clients
        return [client.id for client in clients.ready + clients.running + clients.spawning]

    def is_there(self, name: str) -> bool:
        """Whether process `name` still answers."""
        if self.alone:
            return True
        client = self._runner.clients.get(name)
        return client is not None and client.state != runners.STATE_MISSING

    def prepared(self) -> list[str]:
        """The processes that have prepared the run."""
        if self.sender is not None:
            return [ALONE] if self.sender.prepared else []
        return [name for name in self.names() if name in self._ready]

    def own_report(self) -> Mapping[str, Any] | None:
        """What this process itself has sent since the last call, where it is alone."""
        return None if self.sender is None else self.sender.take_report()

    # A run's schedule.

    def start_when_ready(self, dealt: Iterable[str]) -> bool:
        """Give all of `dealt` that are still there the same start, if each has prepared its share."""
        there = {name for name in dealt if name in self._runner.clients}
        if not there or not there <= self._ready.keys():
            return False
        self._go(there)
        return True

    def _go(self, names: Iterable[str]) -> float:
        start_at = time.time() + _START_LEAD_S
        for name in names:
            self._runner.send_message("loadtest_go", start_at, name)
        return start_at

    # One load of a search.

    def begin(self, load: LoadSpec, names: list[str]) -> float | None:
        """Make `names` send `load`; returns the Unix time of its start, None if none of them is left.

        One that goes missing before the start takes its share with it.
        """
        if self.sender is not None:
            start_at = time.time() + LEAD_S
            self.sender.begin(load, 0, 1)
            self.sender.go(start_at)
            return start_at
        for number, name in enumerate(names):
            data = {"load": load.to_wire(), "number": number, "processes": len(names)}
            self._runner.send_message("loadtest_begin", data, name)
        self._wait(lambda: all(self._ready.get(name) == load.number for name in names if self.is_there(name)))
        there = [name for name in names if self.is_there(name)]
        return self._go(there) if there else None

    def end(self, names: Iterable[str]) -> dict[str, Mapping[str, Any] | None]:
        """Stop the load; returns what each had still to report, None for one that did not answer."""
        if self.sender is not None:
            return {ALONE: self.sender.end()}
        return self.collect("loadtest_end", names)

    def collect(
        self, message: str, names: Iterable[str], timeout_s: float = _FINISH_TIMEOUT_S
    ) -> dict[str, Mapping[str, Any] | None]:
        """Ask workers to end and to hand over the rest; None for one that went missing or took too long."""
        asked = list(names)
        for name in asked:
            self._handed_over.pop(name, None)
            self._runner.send_message(message, None, name)
        self._wait(lambda: all(name in self._handed_over for name in asked if name in self._runner.clients), timeout_s)
        return {name: self._handed_over.pop(name, None) for name in asked}

    def _wait(self, met: Callable[[], bool], timeout_s: float = _FINISH_TIMEOUT_S) -> None:
        """Wait until `met`; looks at every message, and each second for workers that went missing."""
        deadline = time.monotonic() + timeout_s
        while not met() and time.monotonic() < deadline:
            self._changed.clear()
            self._changed.wait(1)

    def _on_ready(self, msg: Any, **_: Any) -> None:
        self._ready[msg.node_id] = msg.data
        self._changed.set()

    def _on_finished(self, msg: Any, **_: Any) -> None:
        self._handed_over[msg.node_id] = msg.data
        self._changed.set()

    def _on_problem(self, msg: Any, **_: Any) -> None:
        self._refuse(f"worker {msg.node_id}: {msg.data}")
