"""The edge by means of an engine's twin, which takes what is known of the arrivals out of the uncertainty.

At the edge most of a stage's uncertainty is in its arrivals: whether a few bursts fell into the window or not moves the
share of misses several times more than all else. But the arrivals are known. So a simulated engine that was fitted to
the measured one (the twin) gets the very same arrivals, at a speed at which it misses as many as were measured. What it
misses in a batch beyond its share in the long run is luck, and is taken off the batch's measured misses (a control
variate: Lavenberg and Welch, 1981; its coefficient, about 1 for a good twin and 0 for a useless one, is that of the
regression of the measured on the simulated misses). The curve of misses against the rate is then fitted to what is
left, and its scatter makes the interval: a twin that fits badly makes it wide, not wrong.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from loadtest.capacity.statistics.saturation_curve import Edge, RateBatch, Slope, fit_edge, log_odds
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
_MOST_OFF = 0.5  # logarithm of the factor between the twin's costs as fitted and as they must be
_HALVINGS = 6
_LEAST_DISPERSION = 0.1
# What the scatter does not show: a twin that misses as the engine does on the arrivals of minutes need not do so in the
# long run. Standard error of the edge's log rate: docs/capacity-accuracy.md tells how it was found.
_UNLIKE = 0.01
# The same, times the square of the luck's share that is not the engine's: one of 0.5 was off by 4 to 11 %.
_UNLIKE_IN_PART = 0.15
_SLOPE_SIGMA = 0.2  # of the twin's slope, logarithmic
_EXPLAINS_LITTLE = 0.5  # coefficient below which the twin's luck is not the engine's


class _Matching:
    """Sends the arrivals of `stages` through the twin at one speed or another."""

    def __init__(self, spec: EngineSpec, limits: SloLimits, stages: Items[StageResult]) -> None:
        self._spec, self._limits, self._stages = spec, limits, stages
        self.measured = [[not request.good for request in stage.requests[: _settled(stage)]] for stage in stages]
        self.wanted, self.requests = sum(map(sum, self.measured)), sum(map(len, self.measured))
        self._tried: dict[float, list[list[bool]]] = {}

    def excess(self, log_cost: float) -> int:
        """How many more requests the twin misses than were measured, when all its costs are times e^`log_cost`."""
        if log_cost not in self._tried:
            spec = self.spec(log_cost)
            self._tried[log_cost] = [
                [
                    not self._limits.met(sequence)
                    for sequence in replay(spec, [*stage.warmup, *stage.requests])[len(stage.warmup) :][: len(misses)]
                ]
                for stage, misses in zip(self._stages, self.measured, strict=True)
            ]
        return sum(map(sum, self._tried[log_cost])) - self.wanted

    def spec(self, log_cost: float) -> EngineSpec:
        """The twin with all its costs times e^`log_cost`."""
        return self._spec.slower(math.exp(log_cost))

    def best(self) -> float:
        """The logarithm of the factor, among those tried, at which the twin misses about as many."""
        return min(self._tried, key=lambda log_cost: (abs(self.excess(log_cost)), abs(log_cost)))

    def batches(self, log_cost: float) -> Iterator[tuple[float, int, int, int]]:
        """Yield (log rate, requests, measured misses, the twin's misses) of each batch."""
        for stage, misses, twins in zip(self._stages, self.measured, self._tried[log_cost], strict=True):
            if not misses:
                continue  # it ended before any of its requests had been left alone by what came after
            for start, end in split(len(misses), max(1, len(misses) // _BATCH_REQUESTS)):
                yield math.log(stage.plan.rate), end - start, sum(misses[start:end]), sum(twins[start:end])


def _settled(stage: StageResult) -> int:
    """How many of its requests ended before the last one was due: arrivals that are not in it did not touch them."""
    requests = stage.requests
    times = [request.e2e_s for request in requests if request.e2e_s is not None]
    if not times:
        return len(requests)
    last = requests[-1].due_s - median(times)
    return sum(request.due_s <= last for request in requests)


def _match(matching: _Matching) -> float | None:
    """The logarithm of the factor on the costs; None when too few were missed, or too many, or none explains it."""
    if not _FEWEST_MISSES <= matching.wanted <= 0.9 * matching.requests:
        return None
    fast, slow = -0.02, 0.02
    while matching.excess(fast) > 0:
        slow, fast = fast, 2 * fast
        if fast < -_MOST_OFF:
            return None
    while matching.excess(slow) < 0:
        fast, slow = slow, 2 * slow
        if slow > _MOST_OFF:
            return None
    for _ in range(_HALVINGS):
        middle = (fast + slow) / 2
        fast, slow = (middle, slow) if matching.excess(middle) < 0 else (fast, middle)
    return matching.best()


def _unlike(coefficient: float) -> float:
    """Standard error of the log rate that the scatter does not show, of a twin with this coefficient."""
    return math.hypot(_UNLIKE, _UNLIKE_IN_PART * (1 - coefficient) ** 2)


def edge_by_twin(  # noqa: PLR0913, PLR0917  # what was measured, and what is asked
    spec: EngineSpec,
    stages: Items[StageResult],
    settings: SearchSettings,
    lengths: Lengths,
    guess: float,
    requests: int,
) -> tuple[Edge, EngineSpec] | None:
    """Estimate the edge from `stages` near `guess` (requests/s), with about `requests` simulated in the long run.

    Their lengths are drawn from `lengths`. Returns the twin at its right speed
    too; None where it explains little of what was measured.
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
    for log_rate, count, missed, twins in matching.batches(log_cost):
        expected = count / (1 + math.exp(-(target + crossing.slope * (log_rate - middle))))
        points.append((log_rate, count, missed, expected, twins - expected))
    weight = sum(luck * luck for *_, luck in points)
    follows = sum((missed - expected) * luck for _, _, missed, expected, luck in points)
    coefficient = min(max(follows / weight, 0.0), 1.0) if weight else 0.0
    if coefficient < _EXPLAINS_LITTLE:
        return None
    batches = [RateBatch(log_rate, count, missed - coefficient * luck) for log_rate, count, missed, _, luck in points]
    edge = fit_edge(
        batches,
        settings.objective,
        settings.confidence,
        middle,
        least_dispersion=_LEAST_DISPERSION,
        # Few stages hardly show a slope; where it comes out too steep, the edge stays too near to the rates tried.
        believed=Slope(crossing.slope, _SLOPE_SIGMA),
    )
    if edge is None or len(batches) < _FEWEST_BATCHES:
        return None
    # The twin's long run was not endless either.
    long_run = coefficient * crossing.error / edge.slope * student_quantile(settings.confidence, len(batches) - 2)
    error = math.hypot(long_run, _unlike(coefficient) * normal_quantile(settings.confidence))
    low = edge.mid * math.exp(-math.hypot(math.log(edge.mid / edge.low), error))
    high = edge.mid * math.exp(math.hypot(math.log(edge.high / edge.mid), error))
    return Edge(low, edge.mid, high, edge.slope), spec
