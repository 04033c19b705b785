"""Seeded searches on engines of known capacity: coverage of the interval, and error of the estimate."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import mean, median
from typing import TYPE_CHECKING

from rich.table import Table

from tests.bench.capacity.engines import ENGINES
from tests.bench.capacity.truth import read
from tests.rig.simulated_engine.simulated_search import search_kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Run:
    """One search; low, mid and high are relative to the true capacity."""

    engine: str
    seed: int
    bound: str
    ended: str
    low: float
    mid: float
    high: float
    seconds: float  # virtual
    requests: int
    computed_s: float  # CPU of the search

    @property
    def holds(self) -> bool:
        """True if the interval contains the true capacity."""
        return self.low <= 1 <= self.high


def search_once(name: str, seed: int, truth: float, budget_s: float) -> Run:
    """Run one search."""
    kind, make = ENGINES[name]
    started = time.process_time()
    searched = search_kind(kind, seed, make=make, budget_s=budget_s)
    answer = searched.answer
    low, mid, high = (0.0 if value is None else value / truth for value in (answer.low, answer.mid, answer.high))
    spent = time.process_time() - started
    return Run(name, seed, answer.bound, answer.ended, low, mid, high, searched.seconds, searched.requests, spent)


def calibrate(names: Sequence[str], seeds: Sequence[int], jobs: int, budget_s: float = 900.0) -> Iterator[Run]:
    """Yield each search as it ends."""
    truth = read()
    tasks = [(name, seed) for seed in seeds for name in names]
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(
            search_once,
            [name for name, _ in tasks],
            [seed for _, seed in tasks],
            [truth[name].rate for name, _ in tasks],
            [budget_s] * len(tasks),
        )


def table(runs: Sequence[Run]) -> Table:
    """Return a table with a row per engine, and one for all."""
    shown = Table(title="Capacity search against the true capacity")
    for column in (
        *("engine", "searches", "interval holds it", "median error", "worst error", "median width"),
        *("median time", "longest", "requests", "ended by interval", "CPU s"),
    ):
        shown.add_column(column, justify="left" if column == "engine" else "right")
    names = list(dict.fromkeys(run.engine for run in runs))
    for name in [*names, "all"] if len(names) > 1 else names:
        chosen = [run for run in runs if name in {run.engine, "all"}]
        errors = [abs(run.mid - 1) for run in chosen]
        shown.add_row(
            name,
            str(len(chosen)),
            f"{sum(run.holds for run in chosen)} ({mean(run.holds for run in chosen):.0%})",
            f"{median(errors):.2%}",
            f"{max(errors):.2%}",
            f"{median((run.high - run.low) / max(run.mid, 1e-9) for run in chosen):.1%}",
            f"{median(run.seconds for run in chosen):.0f} s",
            f"{max(run.seconds for run in chosen):.0f} s",
            f"{median(run.requests for run in chosen):,.0f}",
            f"{mean(run.ended == 'interval' for run in chosen):.0%}",
            f"{median(run.computed_s for run in chosen):.1f}",
        )
    return shown
