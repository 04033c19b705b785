"""Results of a run: reports of all processes, added up on the master."""

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

# Share of a core above which a process no longer reacts at once.
BUSY_CPU_RATIO = 0.9


@dataclass(slots=True)
class LoadProcess:
    """State of one load-generating process, from its reports."""

    in_flight: int = 0
    ended: bool = False  # all of its requests were sent and have ended
    cpu_s: float = 0.0
    wall_s: float = 0.0
    cpu_ratio: float = 0.0  # of one core, over the last report
    busy_s: float = 0.0  # time covered by reports above BUSY_CPU_RATIO
    lost_after_s: float | None = None  # seconds into the run at which it was found missing
    left_after_s: float | None = None  # seconds into the run at which it was stopped, with its last report


class RunResults:
    """All results of one run."""

    def __init__(
        self, options: RunOptions, plan: RunPlan, notes: tuple[str, ...] = (), rows: RowSink | None = None
    ) -> None:
        """Start empty. `notes`: remarks on the workload for the report. `rows` receives one row per request."""
        self.options = options
        self.plan = plan
        self.notes = notes
        self.measured = RunTotals(options.slo)
        self.unmeasured = RunTotals(options.slo)  # warm-up, and requests before a reset
        self.rates = LiveRates()
        self.processes: dict[str, LoadProcess] = {name: LoadProcess() for name in plan.shards}
        self.server_before: ServerCounters | None = None
        self.server_after: ServerCounters | None = None
        self.ended_at: float | None = None  # Unix time
        self.measured_from = 0.0  # Unix time; later than the start after a reset
        self.refusals: list[str] = []  # reasons of processes that could not take part
        self._rows = rows

    def add_report(self, name: str, report: Mapping[str, Any]) -> RunTotals:
        """Add a report of process `name`, made by `RequestSender.take_report`; return its measured totals."""
        measured = RunTotals.from_wire(self.options.slo, report["measured"])
        self.measured.merge(measured)
        self.unmeasured.merge(RunTotals.from_wire(self.options.slo, report["unmeasured"]))
        self.rates.add(measured)
        if self._rows is not None:
            self._rows.add(name, report["rows"])
        process = self.processes.setdefault(name, LoadProcess())
        process.in_flight = report["in_flight"]
        process.ended = report["ended"]
        cpu, wall = report["cpu_s"], report["wall_s"]
        process.cpu_s += cpu
        process.wall_s += wall
        process.cpu_ratio = cpu / wall if wall > 0 else 0.0
        if process.cpu_ratio > BUSY_CPU_RATIO:
            process.busy_s += wall
        return measured

    def reset(self) -> None:
        """Measure from now on; earlier requests still count in the comparison with the server's counters."""
        self.unmeasured.merge(self.measured)
        self.measured = RunTotals(self.options.slo)
        self.rates = LiveRates()
        self.measured_from = time.time()

    def lose(self, name: str) -> LoadProcess | None:
        """Mark process `name` as lost; return its last state, None if it is marked already."""
        process = self.processes.get(name)
        if process is None or process.lost_after_s is not None or process.left_after_s is not None:
            return None
        process.lost_after_s = time.time() - self.plan.started
        return process

    def leave(self, name: str) -> None:
        """Mark process `name` as stopped before the run's end, with nothing lost."""
        process = self.processes.get(name)
        if process is not None:
            process.left_after_s = time.time() - self.plan.started

    @property
    def measured_something(self) -> bool:
        """True if any request has ended."""
        return any(totals.combined().outcomes.total() for totals in (self.measured, self.unmeasured))

    @property
    def all_ended(self) -> bool:
        """True if every connected process has sent all its requests and all have ended."""
        connected = [
            process
            for process in self.processes.values()
            if process.lost_after_s is None and process.left_after_s is None
        ]
        return bool(connected) and all(process.ended for process in connected)

    @property
    def cpu_ratio(self) -> float:
        """Share of one core used by the busiest process, in its last report."""
        return max((process.cpu_ratio for process in self.processes.values()), default=0.0)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes."""
        return sum(process.cpu_s for process in self.processes.values())
