"""The best estimate of the edge from all stages so far: by the engine's twin where it can be had, else by a curve."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtest.capacity.answer import SloLimits, Twin
from loadtest.capacity.statistics.saturation_curve import Edge, RateBatch, fit_edge
from loadtest.capacity.statistics.shares import split
from loadtest.capacity.twin.long_run import find_crossing
from loadtest.capacity.twin.twin_estimate import edge_by_twin
from loadtest.capacity.twin.twin_fit import fit_twin, longest_request, measured_lengths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.capacity.answer import Lengths, SearchSettings
    from loadtest.capacity.stage import StageResult

_REACH = 0.12  # log rate around the estimate: farther stages say nothing about the edge
_FIT_STAGES = 4  # nearest to the edge, beside the first stage, which met an idle engine, and one that missed
_SLACK = 1.05  # by which the edge may lie outside of one stage that met and one that missed: both are judged by chance
_FULL_FITS = 3
# Requests in a batch of the curve. Near saturation neighbours share a queue for hundreds of requests: the scatter of
# short batches says more than they know, and nothing takes the luck of their arrivals out.
_CURVE_BATCH = 250
# Simulated requests. Misses come in bursts: 100,000 leave a standard error of 0.7 % of the edge, 400,000 half of it.
_LONG_RUN, _LAST_LONG_RUN = 40_000, 400_000


class Estimator:
    """Learns with each stage."""

    def __init__(self, settings: SearchSettings, lengths: Lengths | None = None) -> None:
        """Without limits in `settings`, there is nothing to hold a twin's requests against.

        `lengths` are those of many requests of the workload; without them, the measured requests' stand for them.
        """
        self._settings = settings
        self._lengths = lengths
        self._longest = max((prompt + output for prompt, output in lengths or ()), default=0)  # tokens of a request
        self._wants_twin = settings.limits != SloLimits()
        self._fits = 0
        self.twin: Twin | None = None
        self.edge: Edge | None = None
        self.guess: float | None = None  # requests/s; without an interval while there is no edge

    def learn(
        self, stages: Sequence[StageResult], low: float, high: float, *, lost: bool = False, last: bool = False
    ) -> None:
        """Estimate anew from all `stages` that count, of which one met at `low` and one missed at `high` requests/s.

        `lost`: stages around the twin's guess have not shown the edge. `last`: for the answer, more exactly.
        """
        if self._wants_twin:
            self._fit(stages, math.sqrt(low * high) if self.guess is None else self.guess)
        guess = self.guess if self.guess is not None else math.sqrt(low * high)
        if lost:
            # The twin may be unlike its engine: what was measured goes first.
            guess = min(max(guess, low / _SLACK), high * _SLACK)
        near = [
            stage for stage in stages if abs(math.log(stage.plan.rate / guess)) <= _REACH and len(stage.requests) >= 30
        ]
        self.edge = self._edge(near, guess, _LAST_LONG_RUN if last else _LONG_RUN)
        if self.edge is not None:
            self.guess = self.edge.mid

    def _edge(self, near: Sequence[StageResult], guess: float, requests: int) -> Edge | None:
        settings = self._settings
        if self.twin is not None:
            found = edge_by_twin(
                self.twin.spec, near, settings, self._lengths or measured_lengths(near), guess, requests
            )
            if found is not None:
                edge, spec = found
                self.twin = Twin(spec, self.twin.error)
                return edge
        return fit_edge(_batches(near), settings.objective, settings.confidence, math.log(guess))

    def _fit(self, stages: Sequence[StageResult], guess: float) -> None:
        """Fit the twin, and guess the edge from it alone while there is no estimate."""
        near = sorted(stages[1:], key=lambda stage: abs(math.log(stage.plan.rate / guess)))
        chosen = [stages[0], *near[:_FIT_STAGES]]
        beyond = [stage for stage in near[_FIT_STAGES:] if stage.plan.rate > guess]
        # The fit sees the first requests of some stages. The engine held all of them, and will hold those to come.
        self._longest = max(self._longest, longest_request(stages))
        start = self._holding_all(self.twin) if self._fits >= _FULL_FITS else None
        self.twin = twin = self._holding_all(fit_twin([*chosen, *beyond[:1]], start=start) or self.twin)
        self._fits += 1
        if twin is None:
            return
        if self.edge is not None:
            return  # it guesses better
        settings = self._settings
        lengths = self._lengths or measured_lengths(stages)
        crossing = find_crossing(twin.spec, settings, lengths, guess=guess, requests=_LONG_RUN // 2)
        if crossing is not None:
            self.guess = crossing.rate

    def _holding_all(self, twin: Twin | None) -> Twin | None:
        return None if twin is None else Twin(twin.spec.holding(self._longest), twin.error)


def _batches(stages: Sequence[StageResult]) -> list[RateBatch]:
    batches = []
    for stage in stages:
        requests = stage.requests
        for start, end in split(len(requests), max(1, len(requests) // _CURVE_BATCH)):
            missed = sum(not request.good for request in requests[start:end])
            batches.append(RateBatch(math.log(stage.plan.rate), end - start, missed))
    return batches
