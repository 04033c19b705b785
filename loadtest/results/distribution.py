"""Histogram of one measured quantity that merges without loss: percentiles, Prometheus buckets, mean and count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Three significant digits of microseconds up to two hours: percentiles are within 0.1 % of the recorded value.
_LONGEST_US = 7_200_000_000
_LINEAR_BITS = 11
_LINEAR = 1 << _LINEAR_BITS
_COUNTERS = (_LONGEST_US.bit_length() - _LINEAR_BITS + 2) * (_LINEAR // 2)
_MOST_PENDING = 8192
_PERCENTILES = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True)
class DistributionSummary:
    """Figures of a distribution in seconds; all but `count` are None if it is empty."""

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None


class Distribution:
    """Distribution of values in seconds, 0 and up."""

    def __init__(self, edges: Sequence[float]) -> None:
        """`edges` are the upper bounds of the Prometheus buckets, in seconds, ascending; +Inf is implied."""
        self.edges = tuple(edges)
        # Values not yet counted: thousands at a time cost a tenth of what they cost one request's at a time.
        self._pending: list[float] = []
        self._counts: NDArray[np.int64] | None = None
        self._buckets: NDArray[np.int64] = np.zeros(len(self.edges) + 1, np.int64)
        self._total = 0.0
        self._largest = 0.0

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self._buckets.sum()) + len(self._pending)

    @property
    def total(self) -> float:
        """Sum of the values in seconds."""
        self._flush()
        return self._total

    @property
    def largest(self) -> float:
        """Largest value in seconds; 0 if there are none."""
        self._flush()
        return self._largest

    def add(self, value: float) -> None:
        """Record one value."""
        self.add_all((value,))

    def add_all(self, values: Sequence[float]) -> None:
        """Record every value of `values`."""
        self._pending.extend(values)
        if len(self._pending) > _MOST_PENDING:
            self._flush()

    def _flush(self) -> None:
        """Count the pending values."""
        if not self._pending:
            return
        values = np.array(self._pending)
        self._pending.clear()
        self._total += float(values.sum())
        self._largest = max(self._largest, float(values.max()))
        self._buckets += np.bincount(np.searchsorted(self.edges, values), minlength=len(self._buckets))
        if self._counts is None:
            self._counts = np.zeros(_COUNTERS, np.int64)
        counted = np.bincount(_counters(values))
        self._counts[: len(counted)] += counted

    def merge(self, other: Distribution) -> None:
        """Add the values of `other`. Raises ValueError if its bucket edges differ."""
        if other.edges != self.edges:
            raise ValueError("distributions with different bucket edges do not merge")
        other._flush()
        if other._counts is not None:
            self._flush()
            self._counts = other._counts.copy() if self._counts is None else self._counts + other._counts
        self._buckets += other._buckets
        self._total += other._total
        self._largest = max(self._largest, other._largest)

    def percentile(self, percent: float) -> float | None:
        """Return the value in seconds that `percent` % of the values do not exceed; None if there are none."""
        self._flush()
        if self._counts is None:
            return None
        upto = np.cumsum(self._counts)
        place = int(np.searchsorted(upto, max(1, int(percent / 100 * int(upto[-1]) + 0.5))))
        return min(self._largest, _highest_us(place) / 1e6)

    def summary(self) -> DistributionSummary:
        """Return the figures for reports; mean and maximum are exact."""
        count = self.count
        if not count:
            return DistributionSummary(0, None, None, None, None, None, None)
        p50, p90, p95, p99 = (self.percentile(percent) for percent in _PERCENTILES)
        return DistributionSummary(count, self.total / count, p50, p90, p95, p99, self.largest)

    def cumulative(self) -> list[tuple[float, int]]:
        """Return (upper bound in seconds, number of values up to it) per bucket; the last bound is infinite."""
        self._flush()
        return list(zip((*self.edges, float("inf")), np.cumsum(self._buckets).tolist(), strict=True))

    def to_wire(self) -> list[Any]:
        """Return a form that msgpack can carry; `from_wire` reads it."""
        self._flush()
        places = np.empty(0, np.int64) if self._counts is None else np.flatnonzero(self._counts)
        counts = places if self._counts is None else self._counts[places]
        return [list(self.edges), places.tolist(), counts.tolist(), self._buckets.tolist(), self._total, self._largest]

    @classmethod
    def from_wire(cls, wire: Sequence[Any]) -> Self:
        """Read the form of `to_wire`."""
        edges, places, counts, buckets, total, largest = wire
        distribution = cls(edges)
        if places:
            distribution._counts = np.zeros(_COUNTERS, np.int64)
            distribution._counts[places] = counts
        distribution._buckets = np.array(buckets, np.int64)
        distribution._total, distribution._largest = float(total), float(largest)
        return distribution


def _counters(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the counter of each value in seconds."""
    microseconds = np.minimum(values * 1e6 + 0.5, _LONGEST_US).astype(np.int64)
    # Linear up to _LINEAR, then _LINEAR / 2 counters for each doubling, as HdrHistogram divides its range.
    doublings = np.maximum(np.frexp(microseconds)[1] - _LINEAR_BITS, 0)
    counters: NDArray[np.int64] = doublings * (_LINEAR // 2) + (microseconds >> doublings)
    return counters


def _highest_us(counter: int) -> int:
    """Return the largest value of a counter, in microseconds."""
    doublings = max(0, counter // (_LINEAR // 2) - 1)
    return ((counter - doublings * (_LINEAR // 2) + 1) << doublings) - 1
