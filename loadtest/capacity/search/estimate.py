"""Estimate the capacity from all stages so far: by the engine's twin if it fits, else by the curve of misses alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtest.capacity.answer import SloLimits, Twin
from loadtest.capacity.statistics.saturation_curve import CapacityEstimate, RateBatch, fit_saturation_curve
from loadtest.capacity.statistics.shares import split
from loadtest.capacity.twin.long_run import find_crossing
from loadtest.capacity.twin.twin_estimate import estimate_by_twin
from loadtest.capacity.twin.twin_fit import fit_twin, longest_request, measured_lengths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.capacity.answer import Lengths, SearchSettings
    from loadtest.capacity.stage import StageResult

_REACH = 0.12  # log rate around the guess within which stages are used
_FIT_STAGES = 4  # nearest to the guess, besides the first stage (idle engine) and one above the guess
_SLACK = 1.05  # factor by which the capacity may lie outside the bracket: its ends are judged with errors
_FULL_FITS = 3  # fits of limits and costs; later ones fit the costs alone
# Requests in a batch of the curve without a twin. Near saturation, neighbours share a queue for hundreds of requests:
# shorter batches would be correlated, and their interval too narrow.
_CURVE_BATCH = 250
# Simulated requests. Misses come in bursts: 100,000 leave a standard error of 0.7 % of the capacity, 400,000 half that.
_LONG_RUN, _LAST_LONG_RUN = 40_000, 400_000


class Estimator:
    """Estimates the capacity anew with each stage."""

    def __init__(self, settings: SearchSettings, lengths: Lengths | None = None) -> None:
        """Start without a stage; without limits in `settings` there will be no twin.

        `lengths` are those of many requests of the workload; by default, those of the measured requests.
        """
        self._settings = settings
        self._lengths = lengths
        self._longest = max((prompt + output for prompt, output in lengths or ()), default=0)  # tokens of a request
        self._wants_twin = settings.limits != SloLimits()
        self._fits = 0
        self.twin: Twin | None = None
        self.estimate: CapacityEstimate | None = None
        self.guess: float | None = None  # requests/s; also before there is an estimate

    def learn(
        self, stages: Sequence[StageResult], low: float, high: float, *, lost: bool = False, last: bool = False
    ) -> None:
        """Estimate from all `stages` that count; `low` met and `high` missed, requests/s.

        `lost`: stages around the twin's guess did not show the saturation point. `last`: for the answer, more exactly.
        """
        if self._wants_twin:
            self._fit(stages, math.sqrt(low * high) if self.guess is None else self.guess)
        guess = self.guess if self.guess is not None else math.sqrt(low * high)
        if lost:
            # The twin may be wrong: stay within the measured bracket.
            guess = min(max(guess, low / _SLACK), high * _SLACK)
        near = [
            stage for stage in stages if abs(math.log(stage.plan.rate / guess)) <= _REACH and len(stage.requests) >= 30
        ]
        self.estimate = self._estimate(near, guess, _LAST_LONG_RUN if last else _LONG_RUN)
        if self.estimate is not None:
            self.guess = self.estimate.mid

    def _estimate(self, near: Sequence[StageResult], guess: float, requests: int) -> CapacityEstimate | None:
        settings = self._settings
        if self.twin is not None:
            found = estimate_by_twin(
                self.twin.spec, near, settings, self._lengths or measured_lengths(near), guess, requests
            )
            if found is not None:
                estimate, spec = found
                self.twin = Twin(spec, self.twin.error)
                return estimate
        return fit_saturation_curve(_batches(near), settings.objective, settings.confidence, math.log(guess))

    def _fit(self, stages: Sequence[StageResult], guess: float) -> None:
        """Fit the twin; while there is no estimate, guess the capacity from the twin alone."""
        near = sorted(stages[1:], key=lambda stage: abs(math.log(stage.plan.rate / guess)))
        chosen = [stages[0], *near[:_FIT_STAGES]]
        beyond = [stage for stage in near[_FIT_STAGES:] if stage.plan.rate > guess]
        # The fit uses the first requests of some stages, but the engine must hold all of them.
        self._longest = max(self._longest, longest_request(stages))
        start = self._holding_all(self.twin) if self._fits >= _FULL_FITS else None
        self.twin = twin = self._holding_all(fit_twin([*chosen, *beyond[:1]], start=start) or self.twin)
        self._fits += 1
        if twin is None:
            return
        if self.estimate is not None:
            return  # the better guess
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
