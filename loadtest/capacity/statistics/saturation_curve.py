"""Where the share of good requests crosses the objective: all stages near it together, with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from loadtest.capacity.statistics.shares import student_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

_FEWEST_BATCHES, _FEWEST_STAGES = 6, 5
_REACH, _COARSE, _FINE = 0.25, 0.005, 0.0005  # of the log rate: how far around the guess, in which steps


@dataclass(frozen=True, slots=True)
class Slope:
    """What is believed of the curve's slope (change of the log odds of a miss per change of the log rate): log-normal.

    Without any knowledge: queues near saturation have 5 to 80 (an M/M/1 queue: 1 + wait limit * service rate), an
    engine that stalls by itself 4. Where a shallow one is not believed, the interval is too narrow.
    """

    middle: float = 18.0
    sigma: float = 1.0

    def grid(self) -> list[float]:
        """Slopes to try, to three sigma on both sides."""
        return [self.middle * math.exp(self.sigma * step / 4) for step in range(-12, 13)]

    def penalty(self, slope: float) -> float:
        """Minus the logarithm of the density, but for a constant."""
        return (math.log(slope / self.middle) / self.sigma) ** 2 / 2


_ANY_SLOPE = Slope()


@dataclass(frozen=True, slots=True)
class RateBatch:
    """Neighbouring requests of one stage: the log of its rate, how many, and how many missed."""

    log_rate: float
    requests: float
    missed: float


@dataclass(frozen=True, slots=True)
class Edge:
    """Rates in requests/s."""

    low: float
    mid: float
    high: float
    slope: float  # of the log odds of a miss, per log rate

    @property
    def width(self) -> float:
        """Of the interval, relative."""
        return (self.high - self.low) / self.mid


def log_odds(share: float) -> float:
    """Logarithm of share / (1 - share)."""
    return math.log(share / (1 - share))


def _likelihood(batches: Sequence[RateBatch], edge: float, slope: float, target: float) -> float:
    total = 0.0
    for batch in batches:
        odds = target + slope * (batch.log_rate - edge)
        # log p and log (1 - p) of the logistic function, without overflow
        log_miss = -math.log1p(math.exp(-odds)) if odds > -30 else odds
        log_good = log_miss - odds
        total += batch.missed * log_miss + (batch.requests - batch.missed) * log_good
    return total


def fit_edge(  # noqa: PLR0913  # what is known beforehand, with the batches
    batches: Sequence[RateBatch],
    objective: float,
    confidence: float,
    guess: float,
    *,
    least_dispersion: float = 1.0,
    believed: Slope = _ANY_SLOPE,
) -> Edge | None:
    """Fit a logistic curve of misses against the log rate; None when the edge is not among the batches.

    Quasi-likelihood: the binomial likelihood over the dispersion around the curve (Pearson; of the batches or, where it
    is more, of whole stages, for a box may be slower for minutes), with the slope's prior; the interval is where the
    profile falls by half the square of Student's t. `guess` is a log rate.
    `least_dispersion` below 1 is for batches from which part of chance has been taken out; `believed` is the prior.
    """
    shares = [1 - batch.missed / batch.requests for batch in batches]
    if len(batches) < _FEWEST_BATCHES or not min(shares) < objective < max(shares):
        return None
    target = log_odds(1 - objective)
    dispersion, _ = _Profile(batches, target, 1.0, believed).around(guess, _REACH, _COARSE).dispersion(least_dispersion)
    found = _Profile(batches, target, dispersion, believed).around(guess, _REACH, _COARSE)
    dispersion, degrees = found.dispersion(least_dispersion)
    fall = student_quantile(confidence, degrees) ** 2 / 2
    found = _Profile(batches, target, dispersion, believed).around(found.best, _REACH, _COARSE)
    for step in (_COARSE, _FINE):
        # On the grid so far, the interval may end anywhere before the next point.
        reach = min(_REACH, found.half_width(fall) + 2 * found.step)
        found = _Profile(batches, target, dispersion, believed).around(found.best, reach, max(step, reach / 60))
    low, high = found.inside(fall)
    if found.at_the_rim(fall):
        return None
    return Edge(math.exp(low), math.exp(found.best), math.exp(high), found.slope)


class _Profile:
    """The quasi-likelihood of the edge's log rate, each with its best slope."""

    def __init__(self, batches: Sequence[RateBatch], target: float, dispersion: float, believed: Slope) -> None:
        self._batches, self._target, self._dispersion = batches, target, dispersion
        self._believed, self._slopes = believed, believed.grid()
        self._grid: list[float] = []
        self._values: list[float] = []
        self.step = 0.0
        self.best = self.slope = 0.0

    def around(self, centre: float, reach: float, step: float) -> Self:
        """Work it out on a grid."""
        count = round(reach / step)
        self.step = step
        self._grid = [centre + step * number for number in range(-count, count + 1)]
        found = [max((self._value(edge, slope), slope) for slope in self._slopes) for edge in self._grid]
        self._values = [value for value, _ in found]
        top = max(range(len(found)), key=lambda number: self._values[number])
        self.best, self.slope = self._grid[top], found[top][1]
        return self

    def _value(self, edge: float, slope: float) -> float:
        likelihood = _likelihood(self._batches, edge, slope, self._target)
        return likelihood / self._dispersion - self._believed.penalty(slope)

    def dispersion(self, least: float) -> tuple[float, int]:
        """Pearson's around the best curve, of batches or stages, which is more; and its degrees of freedom."""
        batches: list[tuple[float, float]] = []
        stages: dict[float, tuple[float, float]] = {}
        for batch in self._batches:
            miss = 1 / (1 + math.exp(-(self._target + self.slope * (batch.log_rate - self.best))))
            miss = min(max(miss, 0.002), 0.998)
            off, variance = batch.missed - batch.requests * miss, batch.requests * miss * (1 - miss)
            batches.append((off, variance))
            so_far = stages.get(batch.log_rate, (0.0, 0.0))
            stages[batch.log_rate] = so_far[0] + off, so_far[1] + variance
        found = _pearson(batches)
        if len(stages) >= _FEWEST_STAGES:
            found = max(found, _pearson(list(stages.values())))
        return max(least, found[0]), found[1]

    def inside(self, fall: float) -> tuple[float, float]:
        """The lowest and the highest log rate whose likelihood falls by no more."""
        within = self._within(fall)
        return self._grid[within[0]] - self.step / 2, self._grid[within[-1]] + self.step / 2

    def half_width(self, fall: float) -> float:
        low, high = self.inside(fall)
        return max(high - self.best, self.best - low)

    def at_the_rim(self, fall: float) -> bool:
        """Whether the interval goes on beyond the grid."""
        within = self._within(fall)
        return within[0] == 0 or within[-1] == len(self._grid) - 1

    def _within(self, fall: float) -> list[int]:
        top = max(self._values)
        return [number for number, value in enumerate(self._values) if value >= top - fall]


def _pearson(groups: Sequence[tuple[float, float]]) -> tuple[float, int]:
    """Dispersion of (deviation, variance) of groups around a curve with two parameters, and its degrees of freedom."""
    degrees = len(groups) - 2
    return sum(off * off / variance for off, variance in groups) / degrees, degrees
