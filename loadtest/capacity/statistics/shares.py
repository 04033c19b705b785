"""Shares with intervals that stay honest when neighbours resemble each other, as requests in one queue do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, mean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Batches of a window: enough to see how much they differ, each long enough to be nearly independent of the next.
_BATCHES = 20
_FEWEST_PER_BATCH = 5


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its interval, and the number of independent requests that would say as much."""

    share: float
    low: float
    high: float
    effective: float


def normal_quantile(confidence: float) -> float:
    """Two-sided: 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def student_quantile(confidence: float, degrees: float) -> float:
    """Return the two-sided quantile of Student's t with `degrees` of freedom: 12.71 for 0.95 and 1."""
    return _student(0.5 + confidence / 2, degrees)


def _student(probability: float, degrees: float) -> float:
    """Return the one-sided quantile: what `scipy.stats.t.ppf` calls, without the half second that its import takes."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # noqa: PLC0415  # 30 MB, not for workers

    return float(stdtrit(degrees, probability))


def wilson(share: float, effective: float, z: float) -> tuple[float, float]:
    """Return Wilson's score interval (1927) for a share of `effective` independent requests.

    `scipy.stats.binomtest` has it for whole numbers only.
    """
    if effective <= 0:
        return 0.0, 1.0
    shrink = 1 + z * z / effective
    centre = (share + z * z / (2 * effective)) / shrink
    half = z * math.sqrt(share * (1 - share) / effective + z * z / (4 * effective * effective)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


def split(count: int, batches: int) -> list[tuple[int, int]]:
    """Bounds of `batches` runs of neighbours that together hold `count` items, as even as can be."""
    edges = [count * number // batches for number in range(batches + 1)]
    return list(pairwise(edges))


def dispersion(good: Sequence[bool]) -> float:
    """How many times more the shares of batches vary than those of independent requests would; at least 1.

    Batch means: with m batches of n requests, variance of the batches' shares over p (1 - p) / n.
    """
    batches = _batches(len(good))
    share = sum(good) / len(good) if good else 0.0
    if batches < 4 or not 0 < share < 1:
        return 1.0
    size = len(good) / batches
    shares = [sum(good[start:end]) / (end - start) for start, end in split(len(good), batches)]
    variance = sum((value - share) ** 2 for value in shares) / (batches - 1)
    return max(1.0, variance * size / (share * (1 - share)))


def _batches(count: int) -> int:
    """Into how many so many requests are divided."""
    return min(_BATCHES, count // _FEWEST_PER_BATCH)


def judge_share(good: Sequence[bool], z: float) -> Share:
    """The share of good requests, in due order, with a Wilson interval on the effective number of requests."""
    count = len(good)
    if not count:
        return Share(0.0, 0.0, 1.0, 0.0)
    spread = dispersion(good)
    if spread > 1:
        z = _student(NormalDist().cdf(z), _batches(count) - 1)  # the spread itself is known from so many batches
    share = sum(good) / count
    return Share(share, *wilson(share, count / spread, z), count / spread)


def rises(values: Sequence[float]) -> bool:
    """Whether a latency grows throughout a window, as in front of an engine that gets more than it can do.

    Over 10 batches' medians: Kendall's tau at least 0.7 (by chance 1 in 400 for independent ones), and the last third
    at least 1.5 times the first.
    """
    if len(values) < 50:
        return False
    medians = [median(values[start:end]) for start, end in split(len(values), 10)]
    pairs = [(early, late) for i, early in enumerate(medians) for late in medians[i + 1 :]]
    tau = sum((late > early) - (late < early) for early, late in pairs) / len(pairs)
    return tau >= 0.7 and mean(medians[-3:]) >= 1.5 * mean(medians[:3])
