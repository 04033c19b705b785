"""Estimate the capacity with an engine's twin as control variate: it removes the noise of the arrivals.

Near saturation most of a stage's uncertainty comes from its arrivals: whether a few bursts fall into the window changes
the share of misses several times more than everything else. But the arrivals are known. So the twin, a simulated engine
fitted to the measured one, gets the same arrivals, at the speed at which it misses as many as were measured. Its misses
in a batch beyond its long-run share are noise of the arrivals, and are subtracted from the measured misses. This is a
control variate (Lavenberg and Welch, 1981); its coefficient, about 1 for a good twin and 0 for a useless one, is that
of the regression of measured on simulated misses. The curve of misses against the rate is fitted to the rest, whose
scatter gives the interval: a twin that fits badly makes it wide, not wrong.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from loadtest.capacity.statistics.saturation_curve import (
    CapacityEstimate,
    RateBatch,
    Slope,
    fit_saturation_curve,
    log_odds,
)
from loadtest.capacity.statistics.shares import normal_quantile, split, student_quantile
from loadtest.capacity.twin.long_run import find_crossing
from loadtest.capacity.twin.twin_fit import replay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence as Items

    from loadtest.capacity.answer import Lengths, SearchSettings, SloLimits
    from loadtest.capacity.simulation.engine_spec import EngineSpec
    from loadtest.capacity.stage import StageResult

_FEWEST_MISSES = 6
_BATCH_REQUESTS = 50
_FEWEST_BATCHES = 8
_MOST_RESCALED = 0.5  # log of the factor on the twin's fitted costs
_HALVINGS = 6
_LEAST_DISPERSION = 0.1
# Standard error of the log rate that the scatter does not show: a twin that misses like the engine for minutes need not
# do so in the long run. From the calibration in docs/capacity-accuracy.md.
_FIT_ERROR = 0.01
# The same, times the square of the share of the noise that is not the engine's; at 0.5 twins were off by 4 to 11 %.
_PARTIAL_FIT_ERROR = 0.15
_SLOPE_SIGMA = 0.2  # log error of the twin's slope
_LEAST_COEFFICIENT = 0.5  # below it the twin explains too little of the measured misses


class _Matching:
    """Replays the arrivals of `stages` on the twin, at one speed or another."""

    def __init__(self, spec: EngineSpec, limits: SloLimits, stages: Items[StageResult]) -> None:
        self._spec, self._limits, self._stages = spec, limits, stages
        self.measured = [[not request.good for request in stage.requests[: _settled(stage)]] for stage in stages]
        self.wanted, self.requests = sum(map(sum, self.measured)), sum(map(len, self.measured))
        self._tried: dict[float, list[list[bool]]] = {}

    def excess(self, log_cost: float) -> int:
        """Return by how much the twin's misses exceed the measured ones, with all its costs times e^`log_cost`."""
        if log_cost not in self._tried:
            spec = self.spec(log_cost)
            self._tried[log_cost] = [
                [
                    not self._limits.met(request)
                    for request in replay(spec, [*stage.warmup, *stage.requests])[len(stage.warmup) :][: len(misses)]
                ]
                for stage, misses in zip(self._stages, self.measured, strict=True)
            ]
        return sum(map(sum, self._tried[log_cost])) - self.wanted

    def spec(self, log_cost: float) -> EngineSpec:
        """Return the twin with all its costs times e^`log_cost`."""
        return self._spec.slower(math.exp(log_cost))

    def best(self) -> float:
        """Return the tried log factor at which the twin's misses are nearest to the measured ones."""
        return min(self._tried, key=lambda log_cost: (abs(self.excess(log_cost)), abs(log_cost)))

    def batches(self, log_cost: float) -> Iterator[tuple[float, int, int, int]]:
        """Yield (log rate, requests, measured misses, simulated misses) of each batch."""
        for stage, misses, simulated in zip(self._stages, self.measured, self._tried[log_cost], strict=True):
            if not misses:
                continue  # each of its requests may have met arrivals that were cut off
            for start, end in split(len(misses), max(1, len(misses) // _BATCH_REQUESTS)):
                yield math.log(stage.plan.rate), end - start, sum(misses[start:end]), sum(simulated[start:end])


def _settled(stage: StageResult) -> int:
    """Return how many requests ended before the last one was due: no arrival that was cut off affected them."""
    requests = stage.requests
    times = [request.e2e_s for request in requests if request.e2e_s is not None]
    if not times:
        return len(requests)
    last = requests[-1].due_s - median(times)
    return sum(request.due_s <= last for request in requests)


def _match(matching: _Matching) -> float | None:
    """Return the log factor on the costs; None with too few misses, too many, or if no factor fits."""
    if not _FEWEST_MISSES <= matching.wanted <= 0.9 * matching.requests:
        return None
    fast, slow = -0.02, 0.02
    while matching.excess(fast) > 0:
        slow, fast = fast, 2 * fast
        if fast < -_MOST_RESCALED:
            return None
    while matching.excess(slow) < 0:
        fast, slow = slow, 2 * slow
        if slow > _MOST_RESCALED:
            return None
    for _ in range(_HALVINGS):
        middle = (fast + slow) / 2
        fast, slow = (middle, slow) if matching.excess(middle) < 0 else (fast, middle)
    return matching.best()


def _fit_error(coefficient: float) -> float:
    """Return the standard error of the log rate that the scatter does not show."""
    return math.hypot(_FIT_ERROR, _PARTIAL_FIT_ERROR * (1 - coefficient) ** 2)


def estimate_by_twin(  # noqa: PLR0913, PLR0917  # data, question and effort
    spec: EngineSpec,
    stages: Items[StageResult],
    settings: SearchSettings,
    lengths: Lengths,
    guess: float,
    requests: int,
) -> tuple[CapacityEstimate, EngineSpec] | None:
    """Estimate the capacity from `stages` near `guess` (requests/s), with about `requests` simulated in the long run.

    Their lengths are drawn from `lengths`. Returns the estimate and the rescaled twin, or None if the twin explains too
    little of the measured misses.
    """
    matching = _Matching(spec, settings.limits, stages)
    log_cost = _match(matching)
    if log_cost is None:
        return None
    spec = matching.spec(log_cost)
    crossing = find_crossing(spec, settings, lengths, guess=guess, requests=requests)
    if crossing is None:
        return None
    target, middle = log_odds(1 - settings.objective), math.log(crossing.rate)
    points = []
    for log_rate, count, missed, simulated in matching.batches(log_cost):
        expected = count / (1 + math.exp(-(target + crossing.slope * (log_rate - middle))))
        points.append((log_rate, count, missed, expected, simulated - expected))
    variance = sum(noise * noise for *_, noise in points)
    covariance = sum((missed - expected) * noise for _, _, missed, expected, noise in points)
    coefficient = min(max(covariance / variance, 0.0), 1.0) if variance else 0.0
    if coefficient < _LEAST_COEFFICIENT:
        return None
    batches = [RateBatch(log_rate, count, missed - coefficient * noise) for log_rate, count, missed, _, noise in points]
    estimate = fit_saturation_curve(
        batches,
        settings.objective,
        settings.confidence,
        middle,
        least_dispersion=_LEAST_DISPERSION,
        # Few stages hardly show a slope; one too steep would keep the estimate too near to the rates tried.
        prior=Slope(crossing.slope, _SLOPE_SIGMA),
    )
    if estimate is None or len(batches) < _FEWEST_BATCHES:
        return None
    # The twin's long run is finite too.
    long_run = coefficient * crossing.error / estimate.slope * student_quantile(settings.confidence, len(batches) - 2)
    error = math.hypot(long_run, _fit_error(coefficient) * normal_quantile(settings.confidence))
    mid = estimate.mid
    low = mid * math.exp(-math.hypot(math.log(mid / estimate.low), error))
    high = mid * math.exp(math.hypot(math.log(estimate.high / mid), error))
    return CapacityEstimate(low, mid, high, estimate.slope), spec
