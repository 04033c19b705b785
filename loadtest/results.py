"""The receiving side of a run: reports of all processes, added up on the master."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtest.rates import LiveRates
from loadtest.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtest.options import RunOptions
    from loadtest.plan import RunPlan


@dataclass(slots=True)
class Process:
    """The last that was heard from one load-generating process."""

    heard_at: float
    in_flight: int = 0
    cpu_ratio: float = 0.0  # of one core, over its last report


class Results:
    """Everything measured in one run."""

    def __init__(self, options: RunOptions, plan: RunPlan) -> None:
        """Start empty."""
        self.options = options
        self.plan = plan
        self.store = Store(options.slo)
        self.rates = LiveRates()
        self.processes: dict[str, Process] = {}
        self.cpu_s = 0.0

    def add_report(self, process: str, report: Mapping[str, Any]) -> Store:
        """Add what `Session.take_report` of `process` returned; returns the part that is new."""
        fresh = Store.from_wire(self.options.slo, report["store"])
        self.store.merge(fresh)
        self.rates.add(fresh)
        self.cpu_s += report["cpu_s"]
        wall = report["wall_s"]
        self.processes[process] = Process(
            time.monotonic(), report["in_flight"], report["cpu_s"] / wall if wall > 0 else 0.0
        )
        return fresh

    def reset(self) -> None:
        """Forget what was measured so far; the run goes on."""
        self.store = Store(self.options.slo)
        self.rates = LiveRates()
        self.cpu_s = 0.0

    @property
    def cpu_ratio(self) -> float:
        """The busiest process's share of one core in its last report."""
        return max((process.cpu_ratio for process in self.processes.values()), default=0.0)

    @property
    def in_flight(self) -> int:
        """Requests under way, as last reported."""
        return sum(process.in_flight for process in self.processes.values())
