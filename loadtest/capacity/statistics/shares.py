"""Shares with confidence intervals that allow for autocorrelation, as between requests in one queue."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, mean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Batches of a window: enough to estimate their variance, each long enough to be nearly independent of the next.
_BATCHES = 20
_FEWEST_PER_BATCH = 5


@dataclass(frozen=True, slots=True)
class Share:
    """A share, its interval, and the number of independent requests that would give the same interval."""

    share: float
    low: float
    high: float
    effective: float


def normal_quantile(confidence: float) -> float:
    """Return the two-sided quantile of the normal distribution: 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def student_quantile(confidence: float, degrees: float) -> float:
    """Return the two-sided quantile of Student's t with `degrees` of freedom: 12.71 for 0.95 and 1."""
    return _student(0.5 + confidence / 2, degrees)


def _student(probability: float, degrees: float) -> float:
    """Return the one-sided quantile by the function behind `scipy.stats.t.ppf`, which is faster to import."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # noqa: PLC0415  # 30 MB, not for workers

    return float(stdtrit(degrees, probability))


def wilson(share: float, effective: float, z: float) -> tuple[float, float]:
    """Return Wilson's score interval (1927) for a share of `effective` independent requests.

    Not `scipy.stats.binomtest`: it takes whole numbers only.
    """
    if effective <= 0:
        return 0.0, 1.0
    shrink = 1 + z * z / effective
    centre = (share + z * z / (2 * effective)) / shrink
    half = z * math.sqrt(share * (1 - share) / effective + z * z / (4 * effective * effective)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


def split(count: int, batches: int) -> list[tuple[int, int]]:
    """Return the bounds of `batches` consecutive slices of `count` items, as even as possible."""
    bounds = [count * number // batches for number in range(batches + 1)]
    return list(pairwise(bounds))


def dispersion(good: Sequence[bool]) -> float:
    """Return the variance of the batches' shares over that of independent requests; at least 1.

    Method of batch means: with batches of n requests, the variance of their shares over p (1 - p) / n.
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
    """Return the number of batches for `count` requests."""
    return min(_BATCHES, count // _FEWEST_PER_BATCH)


def judge_share(good: Sequence[bool], z: float) -> Share:
    """Return the share of `good` requests (in due order) with a Wilson interval on their effective number.

    `z` is the half width in standard deviations of a normal distribution.
    """
    count = len(good)
    if not count:
        return Share(0.0, 0.0, 1.0, 0.0)
    inflation = dispersion(good)
    if inflation > 1:
        z = _student(NormalDist().cdf(z), _batches(count) - 1)  # the dispersion itself is an estimate
    share = sum(good) / count
    return Share(share, *wilson(share, count / inflation, z), count / inflation)


def rises(values: Sequence[float]) -> bool:
    """Return whether a latency grows throughout a window, as it does at an overloaded engine.

    By the medians of 10 batches: Kendall's tau is at least 0.7 (by chance once in 400 for independent values), and the
    mean of the last three is at least 1.5 times that of the first three.
    """
    if len(values) < 50:
        return False
    medians = [median(values[start:end]) for start, end in split(len(values), 10)]
    pairs = [(early, late) for i, early in enumerate(medians) for late in medians[i + 1 :]]
    tau = sum((late > early) - (late < early) for early, late in pairs) / len(pairs)
    return tau >= 0.7 and mean(medians[-3:]) >= 1.5 * mean(medians[:3])
