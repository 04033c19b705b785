"""Memory, descriptors and disk of the running stack over time, and their slopes."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from drills.stack import StackError, shell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docker.models.containers import Container
    from drills.stack import RunningStack

INTERVAL_S = 5.0
# Per process: id and start (in a container that starts again the ids are the same), resident memory in bytes,
# descriptors (0 for other users' processes), and name.
SCRIPT = """
    exec 2>/dev/null  # a process may end meanwhile
    for process in /proc/[0-9]*; do
      read -r name <"$process/comm" || continue
      set -- "$process"/fd/*
      [ -e "$1" ] || [ -L "$1" ] && count=$# || count=0
      read -r stat <"$process/stat"
      set -- ${stat##*) }
      while read -r key value _; do
        [ "$key" = VmRSS: ] && echo "${process#/proc/}/${20} $((value * 1024)) $count $name"
      done <"$process/status"
    done
    true
"""


@dataclass
class Series:
    """One quantity over time: monotonic seconds, values, and their processes (ids and starts)."""

    at: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    whose: list[frozenset[str]] = field(default_factory=list)

    def add(self, at: float, value: float, whose: frozenset[str] = frozenset()) -> None:
        """Add one point."""
        self.at.append(at)
        self.values.append(value)
        self.whose.append(whose)

    def lives(self, skip_s: float = 0) -> list[Series]:
        """Split at restarts into one series per set of processes, each without its first `skip_s` seconds."""
        lives: list[Series] = []
        for at, value, whose in zip(self.at, self.values, self.whose, strict=True):
            if not lives or lives[-1].whose[-1] != whose:
                lives.append(Series())
            lives[-1].add(at, value, whose)
        return [life.after(skip_s) for life in lives]

    def after(self, skip_s: float) -> Series:
        """The series without its first `skip_s` seconds."""
        kept = Series()
        for at, value, whose in zip(self.at, self.values, self.whose, strict=True):
            if at >= self.at[0] + skip_s:
                kept.add(at, value, whose)
        return kept

    def means(self, every_s: float) -> Series:
        """Means of each `every_s` seconds: neighbouring points are not independent."""
        blocks: dict[int, list[tuple[float, float]]] = {}
        for at, value in zip(self.at, self.values, strict=True):
            blocks.setdefault(int((at - self.at[0]) / every_s), []).append((at, value))
        pairs = [[fmean(column) for column in zip(*block, strict=True)] for block in blocks.values()]
        return Series([at for at, _ in pairs], [value for _, value in pairs])

    @property
    def covered_s(self) -> float:
        """Seconds from the first point to the last."""
        return self.at[-1] - self.at[0] if self.at else 0.0


def slope(lives: Sequence[Series]) -> float:
    """Growth per second by least squares: one slope for all lives, each with its own offset."""
    both = spread = 0.0
    for life in lives:
        if not life.at:
            continue
        mean_at, mean_value = sum(life.at) / len(life.at), sum(life.values) / len(life.at)
        spread += sum((at - mean_at) ** 2 for at in life.at)
        both += sum((at - mean_at) * (value - mean_value) for at, value in zip(life.at, life.values, strict=True))
    return both / spread if spread else 0.0


def slope_error(lives: Sequence[Series]) -> float:
    """Standard error of `slope` from the residuals; infinite for too few points."""
    rate, off, spread, free = slope(lives), 0.0, 0.0, -1
    for life in lives:
        if not life.at:
            continue
        mean_at, mean_value = fmean(life.at), fmean(life.values)
        spread += sum((at - mean_at) ** 2 for at in life.at)
        off += sum(
            (value - mean_value - rate * (at - mean_at)) ** 2 for at, value in zip(life.at, life.values, strict=True)
        )
        free += len(life.at) - 1
    return math.sqrt(off / free / spread) if free > 0 and spread else math.inf


class Samples:
    """Takes samples in a thread until stopped."""

    def __init__(self, stack: RunningStack, interval_s: float = INTERVAL_S) -> None:
        """Prepare sampling; `start` begins it."""
        self._stack = stack
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._take, daemon=True)
        self.series: dict[tuple[str, str], Series] = {}  # by process and quantity
        self._seen: dict[str, set[str]] = {}  # processes of the last sample, by container

    def start(self) -> None:
        """Start sampling."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling after the current sample."""
        self._stop.set()
        self._thread.join()

    def _take(self) -> None:
        while True:
            for container in self._stack.containers():
                if container.status == "running":
                    self._sample(container)
            if self._stop.wait(self._interval_s):
                return

    def _sample(self, container: Container) -> None:
        where = str(container.name).removeprefix(f"{self._stack.project}-")
        now = time.monotonic()
        try:
            lines = shell(container, SCRIPT).splitlines()
        except (StackError, OSError):
            return  # stopped by a drill, or without a shell
        # A process in one sample only is a health check, or this script.
        before, now_there = self._seen.get(str(container.name), set()), set()
        sums: dict[tuple[str, str], float] = {}
        whose: dict[str, set[str]] = {}
        for line in lines:
            process, rss, descriptors, name = line.split(" ", 3)
            now_there.add(process)
            if process not in before:
                continue
            amounts = {"rss": float(rss), "fds": float(descriptors)}
            for who in (f"{where}: {name}", where):
                whose.setdefault(who, set()).add(process)
                for what, amount in amounts.items():
                    sums[who, what] = sums.get((who, what), 0.0) + amount
        self._seen[str(container.name)] = now_there
        for (who, what), total in sums.items():
            self.series.setdefault((who, what), Series()).add(now, total, frozenset(whose[who]))

    def growth_per_minute(self, who: str, what: str, skip_s: float = 0) -> float:
        """Slope of one series, per minute."""
        return 60 * slope([self.series.get((who, what), Series()).after(skip_s)])

    def first_and_last(self, who: str, what: str, skip_s: float = 0) -> tuple[float, float]:
        """Means of the first and of the last five points, without the first `skip_s` seconds."""
        values = self.series.get((who, what), Series()).after(skip_s).values
        if not values:
            return 0.0, 0.0
        first, last = values[:5], values[-5:]
        return sum(first) / len(first), sum(last) / len(last)
