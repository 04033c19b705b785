"""One measured quantity as a histogram that merges without loss: percentiles, Prometheus buckets, mean and count."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]  # no stubs exist

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Three significant digits of microseconds up to two hours: percentiles are within 0.1 % of the recorded value.
_LONGEST_US = 7_200_000_000
_DIGITS = 3
_PERCENTILES = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True)
class Summary:
    """A distribution in seconds; all but `count` are None when it is empty."""

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None


class Distribution:
    """Values in seconds, 0 and up."""

    def __init__(self, edges: Sequence[float]) -> None:
        """`edges` are the upper bounds of the Prometheus buckets, in seconds, rising; +Inf is implied."""
        self.edges = tuple(edges)
        self._histogram: Any = None  # made with the first value: most endpoints of most reports are empty
        self._buckets = [0] * (len(self.edges) + 1)
        self.total = 0.0
        self.largest = 0.0

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self._buckets)

    def add(self, value: float) -> None:
        """Record one value."""
        self.add_all((value,))

    def add_all(self, values: Iterable[float]) -> None:
        """Record every value of `values`."""
        if self._histogram is None:
            self._histogram = HdrHistogram(1, _LONGEST_US, _DIGITS)
        record = self._histogram.record_value
        edges, buckets = self.edges, self._buckets
        for value in values:
            record(min(_LONGEST_US, int(value * 1e6 + 0.5)))
            buckets[bisect_left(edges, value)] += 1
            self.total += value
            self.largest = max(self.largest, value)

    def merge(self, other: Distribution) -> None:
        """Add what `other` holds. Raises ValueError if its buckets are not the same."""
        if other.edges != self.edges:
            raise ValueError("distributions with different bucket edges do not merge")
        if other._histogram is None:
            return
        if self._histogram is None:
            self._histogram = HdrHistogram(1, _LONGEST_US, _DIGITS)
        self._histogram.add(other._histogram)
        self._buckets = [mine + theirs for mine, theirs in zip(self._buckets, other._buckets, strict=True)]
        self.total += other.total
        self.largest = max(self.largest, other.largest)

    def percentile(self, percent: float) -> float | None:
        """Return the value in seconds that `percent` % of the values do not exceed; None when there are none."""
        if not self.count:
            return None
        return min(self.largest, int(self._histogram.get_value_at_percentile(percent)) / 1e6)

    def summary(self) -> Summary:
        """Return the figures that are printed; the mean and the maximum are exact."""
        count = self.count
        if not count:
            return Summary(0, None, None, None, None, None, None)
        p50, p90, p95, p99 = (self.percentile(percent) for percent in _PERCENTILES)
        return Summary(count, self.total / count, p50, p90, p95, p99, self.largest)

    def cumulative(self) -> list[tuple[float, int]]:
        """Return (upper bound, number of values up to it) per bucket, the last bound being infinite."""
        return list(zip((*self.edges, float("inf")), accumulate(self._buckets), strict=True))

    def to_wire(self) -> list[Any]:
        """Return what msgpack can carry; `from_wire` reads it."""
        encoded = b"" if self._histogram is None else self._histogram.encode()
        return [list(self.edges), encoded, self._buckets, self.total, self.largest]

    @classmethod
    def from_wire(cls, wire: Sequence[Any]) -> Self:
        """Read what `to_wire` made."""
        edges, encoded, buckets, total, largest = wire
        made = cls(edges)
        if encoded:
            made._histogram = HdrHistogram(1, _LONGEST_US, _DIGITS)
            made._histogram.decode_and_add(encoded)
        made._buckets = list(buckets)
        made.total, made.largest = float(total), float(largest)
        return made
