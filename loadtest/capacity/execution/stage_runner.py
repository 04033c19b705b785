"""Run the search's stages, and record what client and engine report during each."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event

from loadtest.capacity.bottleneck.engine_series import EngineSampler
from loadtest.capacity.bottleneck.host_cores import OthersCpu
from loadtest.capacity.execution.validity import client_figures, client_problems, void_reasons
from loadtest.capacity.execution.window import MeasuredWindow
from loadtest.results.run_results import RunResults
from loadtest.results.server_counters import read_settled_counters
from loadtest.single_run import reconcile_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadtest.capacity.engine_sample import EngineSample
    from loadtest.sending.pacing import LoadSpec
    from loadtest.single_run import RunContext

log = logging.getLogger(__name__)

# Time for the first worker to prepare the run.
_PREPARE_TIMEOUT_S = 120.0
# Gap between the request numbers of two loads, for requests that were sent and never reported.
_NUMBERS_GAP = 1000


class NobodyToSendError(Exception):
    """No load generator is connected."""


@dataclasses.dataclass(frozen=True, slots=True)
class StageRun:
    """A load that has ended. `began` is monotonic, `started` Unix time, in seconds."""

    window: MeasuredWindow
    results: RunResults
    began: float
    started: float
    duration_s: float
    samples: Sequence[EngineSample]
    processes: int
    client: Mapping[str, Any]  # of `validity.client_figures`
    client_problems: tuple[str, ...]
    void: tuple[str, ...]
    others_cpu: float | None  # share of this host's cores that others used before the load


class StageRunner:
    """Runs the loads of one search, one after the other."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._workers = context.workers
        self._metrics = context.metrics
        self._options = context.options
        self._plan = context.plan
        self._workload = context.workload
        self._load: LoadSpec | None = None  # the current one
        self._new_report = Event()
        self.results: RunResults | None = None  # of the current or last load
        self.next_number = 0  # first request number that no load has sent yet

    def add(self, process: str, report: Mapping[str, Any]) -> None:
        """Add a process's report on the current load."""
        if self.results is None or self._load is None:
            return
        if (report["run"], report["load"]) != (self._plan.run_id, self._load.number):
            return  # on an earlier load or run
        self._metrics.add(self.results.add_report(process, report))
        self._new_report.set()

    def mark_lost_processes(self) -> None:
        """Mark processes that have disconnected as lost."""
        for name in self.results.processes if self.results is not None else ():
            if not self._workers.is_there(name) and self.results is not None and self.results.lose(name) is not None:
                log.error("load generator %s was lost: this stage does not count", name)

    def await_processes(self, wanted: int) -> None:
        """Wait until `wanted` processes have prepared the run. Raises NobodyToSendError if none has in time."""
        deadline = time.monotonic() + _PREPARE_TIMEOUT_S
        while len(self._workers.prepared()) < max(1, min(wanted, len(self._workers.names()))):
            if time.monotonic() > deadline:
                if self._workers.prepared():
                    return
                raise NobodyToSendError(f"no load generator was ready within {_PREPARE_TIMEOUT_S:.0f} s")
            gevent.sleep(0.1)

    def run(self, load: LoadSpec, ended: Callable[[MeasuredWindow], bool]) -> StageRun:
        """Send `load` until `ended`, called once a second, and reconcile it with the server's counters."""
        self.await_processes(1)  # lost ones may have reconnected
        names = self._workers.prepared()
        options = dataclasses.replace(self._options, pacing=load.pacing)
        window = MeasuredWindow(load, self._workload, self._context.rows)
        results = RunResults(options, self._plan.deal(names, load.users), self._workload.notes, window)
        before = OthersCpu()
        results.server_before = read_settled_counters(options.target)
        others_cpu = before.share()
        self.results, self._load = results, load
        self._metrics.start_run(results, load.pacing.rate or 0.0)
        began, started = time.monotonic(), time.time()
        sampler = EngineSampler(options.target)
        try:
            if self._workers.begin(load, names) is not None:
                self._wait(results, lambda: ended(window))
        finally:
            samples = sampler.stop()
        self.end()
        self.next_number = window.last_number + _NUMBERS_GAP
        results.ended_at = time.time()
        results.server_after = read_settled_counters(options.target)
        client = client_figures(results, window.delays)
        problems = tuple(client_problems(results, client))
        return StageRun(
            window=window,
            results=results,
            began=began,
            started=started,
            duration_s=time.monotonic() - began,
            samples=samples,
            processes=len(names),
            client=client,
            client_problems=problems,
            void=void_reasons(results, reconcile_run(results, self._workload), problems),
            others_cpu=others_cpu,
        )

    def _wait(self, results: RunResults, ended: Callable[[], bool]) -> None:
        while True:
            self._new_report.wait(1)
            self._new_report.clear()
            gone = any(
                process.lost_after_s is not None or process.left_after_s is not None
                for process in results.processes.values()
            )
            if gone or ended():
                return

    def end(self) -> None:
        """Stop the current load, if any, and add the processes' last reports."""
        if self._load is None or self.results is None:
            return
        for name, report in self._workers.end(self.results.processes).items():
            if report is not None:
                self.add(name, report)
            else:
                self.results.lose(name)
        self._load = None
