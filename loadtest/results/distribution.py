"""Histogram of one measured quantity that merges without loss: percentiles, Prometheus buckets, mean and count."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]  # no stubs exist

if TYPE_CHECKING:
    from collections.abc import Sequence

# Three significant digits of microseconds up to two hours: percentiles are within 0.1 % of the recorded value.
_LONGEST_US = 7_200_000_000
_DIGITS = 3
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
        # Values not yet in the histogram, in microseconds: counting equal ones first is several times cheaper than
        # adding each to the histogram.
        self._pending: Counter[int] = Counter()
        self._histogram: Any = None
        self._buckets = [0] * (len(self.edges) + 1)
        self.total = 0.0
        self.largest = 0.0

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self._buckets)

    def add(self, value: float) -> None:
        """Record one value."""
        self.add_all((value,))

    def add_all(self, values: Sequence[float]) -> None:
        """Record every value of `values`."""
        if not values:
            return
        self._pending.update([int(value * 1e6 + 0.5) for value in values])
        if len(self._pending) > _MOST_PENDING:
            self._flush()
        self.total += sum(values)
        ordered = sorted(values)
        self.largest = max(self.largest, ordered[-1])
        # One search per edge in between, not one per value.
        buckets, edges, below = self._buckets, self.edges, 0
        for place in range(bisect_left(edges, ordered[0]), bisect_left(edges, ordered[-1])):
            up_to = bisect_right(ordered, edges[place])
            buckets[place] += up_to - below
            below = up_to
        buckets[bisect_left(edges, ordered[-1])] += len(ordered) - below

    def _flush(self) -> None:
        """Move the pending values into the histogram, whose size does not grow with their number."""
        if self._histogram is None:
            self._histogram = HdrHistogram(1, _LONGEST_US, _DIGITS)
        record = self._histogram.record_value
        for microseconds, count in self._pending.items():
            record(min(_LONGEST_US, microseconds), count)
        self._pending.clear()

    def merge(self, other: Distribution) -> None:
        """Add the values of `other`. Raises ValueError if its bucket edges differ."""
        if other.edges != self.edges:
            raise ValueError("distributions with different bucket edges do not merge")
        self._pending.update(other._pending)
        if other._histogram is not None:
            self._flush()
            self._histogram.add(other._histogram)
        elif len(self._pending) > _MOST_PENDING:
            self._flush()
        self._buckets = [mine + theirs for mine, theirs in zip(self._buckets, other._buckets, strict=True)]
        self.total += other.total
        self.largest = max(self.largest, other.largest)

    def percentile(self, percent: float) -> float | None:
        """Return the value in seconds that `percent` % of the values do not exceed; None if there are none."""
        if not self.count:
            return None
        self._flush()
        return min(self.largest, int(self._histogram.get_value_at_percentile(percent)) / 1e6)

    def summary(self) -> DistributionSummary:
        """Return the figures for reports; mean and maximum are exact."""
        count = self.count
        if not count:
            return DistributionSummary(0, None, None, None, None, None, None)
        p50, p90, p95, p99 = (self.percentile(percent) for percent in _PERCENTILES)
        return DistributionSummary(count, self.total / count, p50, p90, p95, p99, self.largest)

    def cumulative(self) -> list[tuple[float, int]]:
        """Return (upper bound in seconds, number of values up to it) per bucket; the last bound is infinite."""
        return list(zip((*self.edges, float("inf")), accumulate(self._buckets), strict=True))

    def to_wire(self) -> list[Any]:
        """Return a form that msgpack can carry; `from_wire` reads it."""
        encoded = b"" if self._histogram is None else self._histogram.encode()
        return [list(self.edges), encoded, list(self._pending.items()), self._buckets, self.total, self.largest]

    @classmethod
    def from_wire(cls, wire: Sequence[Any]) -> Self:
        """Read the form of `to_wire`."""
        edges, encoded, pending, buckets, total, largest = wire
        distribution = cls(edges)
        if encoded:
            distribution._histogram = HdrHistogram(1, _LONGEST_US, _DIGITS)
            distribution._histogram.decode_and_add(encoded)
        distribution._pending = Counter(dict(pending))
        distribution._buckets = list(buckets)
        distribution.total, distribution.largest = float(total), float(largest)
        return distribution
