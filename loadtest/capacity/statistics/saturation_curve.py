"""Fit the share of misses against the rate: the rate at which it crosses the objective, with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from loadtest.capacity.statistics.shares import student_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

_FEWEST_BATCHES, _FEWEST_STAGES = 6, 5
_REACH, _COARSE, _FINE = 0.25, 0.005, 0.0005  # log rate: half width and steps of the grid


@dataclass(frozen=True, slots=True)
class Slope:
    """Log-normal prior of the curve's slope: change of the log odds of a miss per change of the log rate.

    The default is for an unknown engine: queues near saturation have 5 to 80 (M/M/1: 1 + wait limit * service rate), an
    engine that stalls now and then has 4. A prior that excludes shallow slopes makes the interval too narrow.
    """

    middle: float = 18.0
    sigma: float = 1.0

    def grid(self) -> list[float]:
        """Return the slopes to try, up to three sigma on both sides."""
        return [self.middle * math.exp(self.sigma * step / 4) for step in range(-12, 13)]

    def penalty(self, slope: float) -> float:
        """Return minus the log of the density, up to a constant."""
        return (math.log(slope / self.middle) / self.sigma) ** 2 / 2


_ANY_SLOPE = Slope()


@dataclass(frozen=True, slots=True)
class RateBatch:
    """Consecutive requests of one stage: the log of its rate, their number, and the number that missed."""

    log_rate: float
    requests: float
    missed: float


@dataclass(frozen=True, slots=True)
class CapacityEstimate:
    """The saturation point and its interval, requests/s."""

    low: float
    mid: float
    high: float
    slope: float  # of the log odds of a miss, per log rate

    @property
    def width(self) -> float:
        """Relative width of the interval."""
        return (self.high - self.low) / self.mid


def log_odds(share: float) -> float:
    """Return the log of share / (1 - share)."""
    return math.log(share / (1 - share))


def _log_likelihood(batches: Sequence[RateBatch], middle: float, slope: float, target: float) -> float:
    total = 0.0
    for batch in batches:
        odds = target + slope * (batch.log_rate - middle)
        # log p and log (1 - p) of the logistic function, without overflow
        log_miss = -math.log1p(math.exp(-odds)) if odds > -30 else odds
        log_good = log_miss - odds
        total += batch.missed * log_miss + (batch.requests - batch.missed) * log_good
    return total


def fit_saturation_curve(  # noqa: PLR0913  # data, question and prior
    batches: Sequence[RateBatch],
    objective: float,
    confidence: float,
    guess: float,
    *,
    least_dispersion: float = 1.0,
    prior: Slope = _ANY_SLOPE,
) -> CapacityEstimate | None:
    """Fit a logistic curve of misses against the log rate; None if the batches do not enclose the objective.

    Quasi-likelihood (Wedderburn, 1974): the binomial log likelihood over Pearson's dispersion around the curve, plus
    the prior of the slope. The dispersion is that of the batches or, if larger, of whole stages, since a host may be
    slower for minutes. The interval ends where the profile has fallen by half the square of Student's t. `guess` is a
    log rate; `least_dispersion` is below 1 for batches from which part of the noise was removed.
    """
    shares = [1 - batch.missed / batch.requests for batch in batches]
    if len(batches) < _FEWEST_BATCHES or not min(shares) < objective < max(shares):
        return None
    target = log_odds(1 - objective)
    dispersion, _ = _Profile(batches, target, 1.0, prior).evaluate(guess, _REACH, _COARSE).dispersion(least_dispersion)
    found = _Profile(batches, target, dispersion, prior).evaluate(guess, _REACH, _COARSE)
    dispersion, degrees = found.dispersion(least_dispersion)
    drop = student_quantile(confidence, degrees) ** 2 / 2
    found = _Profile(batches, target, dispersion, prior).evaluate(found.best, _REACH, _COARSE)
    for step in (_COARSE, _FINE):
        # The interval may end anywhere before the next point of the grid so far.
        reach = min(_REACH, found.half_width(drop) + 2 * found.step)
        found = _Profile(batches, target, dispersion, prior).evaluate(found.best, reach, max(step, reach / 60))
    low, high = found.inside(drop)
    if found.is_cut_off(drop):
        return None
    return CapacityEstimate(math.exp(low), math.exp(found.best), math.exp(high), found.slope)


class _Profile:
    """Profile quasi-likelihood of the log rate: each with its best slope."""

    def __init__(self, batches: Sequence[RateBatch], target: float, dispersion: float, prior: Slope) -> None:
        self._batches, self._target, self._dispersion = batches, target, dispersion
        self._prior, self._slopes = prior, prior.grid()
        self._grid: list[float] = []
        self._values: list[float] = []
        self.step = 0.0
        self.best = self.slope = 0.0

    def evaluate(self, centre: float, reach: float, step: float) -> Self:
        """Evaluate the profile on a grid around `centre`; return itself."""
        count = round(reach / step)
        self.step = step
        self._grid = [centre + step * number for number in range(-count, count + 1)]
        found = [max((self._value(middle, slope), slope) for slope in self._slopes) for middle in self._grid]
        self._values = [value for value, _ in found]
        top = max(range(len(found)), key=lambda number: self._values[number])
        self.best, self.slope = self._grid[top], found[top][1]
        return self

    def _value(self, middle: float, slope: float) -> float:
        likelihood = _log_likelihood(self._batches, middle, slope, self._target)
        return likelihood / self._dispersion - self._prior.penalty(slope)

    def dispersion(self, least: float) -> tuple[float, int]:
        """Return Pearson's dispersion around the best curve, the larger of batches and stages, and its freedom."""
        batches: list[tuple[float, float]] = []
        stages: dict[float, tuple[float, float]] = {}
        for batch in self._batches:
            miss = 1 / (1 + math.exp(-(self._target + self.slope * (batch.log_rate - self.best))))
            miss = min(max(miss, 0.002), 0.998)
            deviation, variance = batch.missed - batch.requests * miss, batch.requests * miss * (1 - miss)
            batches.append((deviation, variance))
            so_far = stages.get(batch.log_rate, (0.0, 0.0))
            stages[batch.log_rate] = so_far[0] + deviation, so_far[1] + variance
        found = _pearson(batches)
        if len(stages) >= _FEWEST_STAGES:
            found = max(found, _pearson(list(stages.values())))
        return max(least, found[0]), found[1]

    def inside(self, drop: float) -> tuple[float, float]:
        """Return the lowest and the highest log rate at which the profile has fallen by at most `drop`."""
        within = self._within(drop)
        return self._grid[within[0]] - self.step / 2, self._grid[within[-1]] + self.step / 2

    def half_width(self, drop: float) -> float:
        low, high = self.inside(drop)
        return max(high - self.best, self.best - low)

    def is_cut_off(self, drop: float) -> bool:
        """Return whether the interval extends beyond the grid."""
        within = self._within(drop)
        return within[0] == 0 or within[-1] == len(self._grid) - 1

    def _within(self, drop: float) -> list[int]:
        top = max(self._values)
        return [number for number, value in enumerate(self._values) if value >= top - drop]


def _pearson(groups: Sequence[tuple[float, float]]) -> tuple[float, int]:
    """Return dispersion and degrees of freedom of (deviation, variance) groups around a curve with two parameters."""
    degrees = len(groups) - 2
    return sum(deviation**2 / variance for deviation, variance in groups) / degrees, degrees
