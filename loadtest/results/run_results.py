"""The receiving side of a run: reports of all processes, added up on the master."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtest.results.live_rates import LiveRates
from loadtest.results.totals import RunTotals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtest.results.csv_rows import RowSink
    from loadtest.results.server_counters import ServerCounters
    from loadtest.settings.run_options import RunOptions
    from loadtest.settings.run_plan import RunPlan

# A process that needs more of a core than this no longer reacts at once.
BUSY_CPU_RATIO = 0.9


@dataclass(slots=True)
class LoadProcess:
    """What one load-generating process has told of itself."""

    heard_at: float = 0.0  # monotonic
    in_flight: int = 0
    ended: bool = False  # it has sent all that it had to, and all of that has ended
    cpu_s: float = 0.0
    wall_s: float = 0.0
    cpu_ratio: float = 0.0  # of one core, over the last report
    busy_s: float = 0.0  # spent in reports above BUSY_CPU_RATIO
    lost_after_s: float | None = None  # seconds into the run at which it was found missing
    left_after_s: float | None = None  # seconds into the run at which it was told to end, and handed over all it had


class RunResults:
    """Everything measured in one run."""

    def __init__(
        self, options: RunOptions, plan: RunPlan, notes: tuple[str, ...] = (), rows: RowSink | None = None
    ) -> None:
        """Start empty. `notes` is what a reader must know of the workload; `rows` takes one row a request."""
        self.options = options
        self.plan = plan
        self.notes = notes
        self.measured = RunTotals(options.slo)
        self.unmeasured = RunTotals(options.slo)  # warm-up, and what came before a reset
        self.rates = LiveRates()
        self.processes: dict[str, LoadProcess] = {name: LoadProcess() for name in plan.shards}
        self.server_before: ServerCounters | None = None
        self.server_after: ServerCounters | None = None
        self.ended_at: float | None = None  # Unix time
        self.measured_from = 0.0  # Unix time; later than the start after a reset
        self.refusals: list[str] = []  # what processes said that could not take part
        self._rows = rows

    def add_report(self, name: str, report: Mapping[str, Any]) -> RunTotals:
        """Add what `Session.take_report` of process `name` returned; returns the measured part."""
        fresh = RunTotals.from_wire(self.options.slo, report["measured"])
        self.measured.merge(fresh)
        self.unmeasured.merge(RunTotals.from_wire(self.options.slo, report["unmeasured"]))
        self.rates.add(fresh)
        if self._rows is not None:
            self._rows.add(name, report["rows"])
        process = self.processes.setdefault(name, LoadProcess())
        process.heard_at = time.monotonic()
        process.in_flight = report["in_flight"]
        process.ended = report["ended"]
        cpu, wall = report["cpu_s"], report["wall_s"]
        process.cpu_s += cpu
        process.wall_s += wall
        process.cpu_ratio = cpu / wall if wall > 0 else 0.0
        if process.cpu_ratio > BUSY_CPU_RATIO:
            process.busy_s += wall
        return fresh

    def reset(self) -> None:
        """Measure from now on; what came before still counts against the server's own counters."""
        self.unmeasured.merge(self.measured)
        self.measured = RunTotals(self.options.slo)
        self.rates = LiveRates()
        self.measured_from = time.time()

    def lose(self, name: str) -> LoadProcess | None:
        """Note that process `name` is gone; returns what was last heard of it, None if that was noted before."""
        process = self.processes.get(name)
        if process is None or process.lost_after_s is not None or process.left_after_s is not None:
            return None
        process.lost_after_s = time.time() - self.plan.started
        return process

    def leave(self, name: str) -> None:
        """Note that process `name` ends before the run does, with nothing lost."""
        process = self.processes.get(name)
        if process is not None:
            process.left_after_s = time.time() - self.plan.started

    @property
    def measured_something(self) -> bool:
        """Whether any request has ended."""
        return any(store.combined().outcomes.total() for store in (self.measured, self.unmeasured))

    @property
    def all_ended(self) -> bool:
        """Whether every process that is still there has sent and ended all that it had to."""
        there = [
            process
            for process in self.processes.values()
            if process.lost_after_s is None and process.left_after_s is None
        ]
        return bool(there) and all(process.ended for process in there)

    @property
    def cpu_ratio(self) -> float:
        """The busiest process's share of one core in its last report."""
        return max((process.cpu_ratio for process in self.processes.values()), default=0.0)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes."""
        return sum(process.cpu_s for process in self.processes.values())

    @property
    def in_flight(self) -> int:
        """Requests under way, as last reported."""
        return sum(process.in_flight for process in self.processes.values())
