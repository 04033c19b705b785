"""Search for the highest rate that meets the SLO: plan the next stage, and combine all of them into an answer.

The search starts low, multiplies the rate until a stage misses, halves the ratio of the two rates until they are near,
and then runs stages around the best estimate until its interval is narrow enough or the time is up.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from loadtest.capacity.answer import Bound, Ended, SearchAnswer, SearchSettings, StageVerdict
from loadtest.capacity.search import stage_verdict
from loadtest.capacity.search.estimate import Estimator
from loadtest.capacity.stage import Decision, StagePlan
from loadtest.capacity.statistics.shares import normal_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.capacity.answer import Lengths
    from loadtest.capacity.stage import Purpose, StageRequest, StageResult

_FEWEST_WARMUP = 3  # requests: the first ones of a stage meet cold caches and connections
_WARMUP_SERVICES = 2.5  # durations of a request: by then the engine is filled
# Mean requests in flight below which they meet an idle engine: a lower rate would change nothing.
_IDLE_CONCURRENCY = 0.15
# Share of failed requests from which on a stage tells nothing about speed; requests/s below which a server where nearly
# all fail would not get better.
_NEARLY_ALL, _SELDOM = 0.95, 1.0
_NEAR = 1.3  # ratio of the lowest rate that missed to the highest that met, at which stages stay at the estimate
_NEAR_GUESS = 0.1  # log rate between guess and last stage: the guess has settled
_SATURATION_OFFSETS = (0.0, 0.04, -0.04)  # log rate: both sides of the estimate, for the slope
_SATURATION_REQUESTS, _SATURATION_SERVICES = (
    250,
    15,
)  # fewest requests of a stage there, and fewest durations of one
_FEWEST_REQUESTS = 40
_MOST_VOID = 3
# With five, the estimate is off by 2 % (root mean square) and its interval unreliable: docs/capacity-accuracy.md.
_FEWEST_SATURATION_STAGES = 9
# Log rate by which a stage that met may lie above the capacity. At that distance, a stage of 250 requests meets by
# chance 1 time in 10: its queue had no time to grow, and without misses nothing shows the autocorrelation.
_CHANCE_MARGIN = 0.15
_TRUSTED_STAGES = 4
_AGREEING_STAGES = 2  # if none or all requests miss in the first ones, the guess is far off
_MAYBE_NARROW = 1.3  # the answer's interval is narrower than those between stages, by its longer run of the twin


class Search:
    """Loop: `next_stage`, run it until `decide` ends it, `add` its result; until there is no next stage."""

    def __init__(self, settings: SearchSettings, lengths: Lengths | None = None) -> None:
        """Start without a stage; `lengths` as for `Estimator`."""
        self.settings = settings
        self._results: list[StageResult] = []
        self._verdicts: list[StageVerdict] = []
        self._ended: Ended | None = None
        self._estimator = Estimator(settings, lengths)
        self._saturation_stages = 0
        self._at_saturation = False
        self._voids = 0  # void stages in a row

    def next_stage(self, elapsed_s: float) -> StagePlan | None:
        """Return the next stage, `elapsed_s` seconds into the search; None when the search has ended."""
        if self._ended is not None:
            return None
        plan = self._next(elapsed_s)
        if plan is not None and elapsed_s + plan.warmup_s + plan.min_requests / plan.rate > self.settings.budget_s:
            self._ended = "budget"
            return None
        return plan

    def decide(self, plan: StagePlan, requests: Sequence[StageRequest]) -> Decision:
        """Judge the running stage by its `requests` so far, as in `StageResult`."""
        return stage_verdict.decide(plan, requests, self.settings.objective, ended=False)

    def add(self, result: StageResult) -> None:
        """Add the result of the stage that was planned last."""
        plan, requests = result.plan, result.requests
        share = stage_verdict.interval(requests, normal_quantile(self.settings.confidence))
        decision = stage_verdict.decide(plan, requests, self.settings.objective, ended=True)
        self._results.append(result)
        self._verdicts.append(
            StageVerdict(
                plan=plan,
                decision=decision,
                requests=len(requests),
                share=share.share,
                share_low=share.low,
                share_high=share.high,
                effective_requests=share.effective,
                unstable=stage_verdict.is_unstable(requests),
                void=result.void,
                client_limited=result.client_limited,
            )
        )
        if result.void or result.client_limited or not requests:
            lowered_limit = result.client_limited and plan.rate > self._sent()
            self._voids += not lowered_limit
            return
        self._voids = 0
        self._saturation_stages += plan.purpose == "edge"
        low, high = self._bounds()
        if low is not None and high is not None:
            self._estimator.learn([counted for counted, _ in self._counting()], low, high, lost=self._is_lost())

    def answer(self) -> SearchAnswer:
        """Return the answer so far; final once `next_stage` returned None."""
        ended = self._ended or "budget"
        low, high = self._bounds()
        bound: Bound = "edge"
        mid: float | None = None
        if high is None:
            bound, low = "floor", low or 0.0
        elif low is None:
            bound = "never_met" if ended in {"idle_engine", "failed"} else "floor"
            low, high = (None if bound == "never_met" else 0.0), None
        elif self._estimator.estimate is not None:
            estimate = self._estimator.estimate
            low, mid, high = estimate.low, estimate.mid, estimate.high
        else:
            low, high = self._sure_bounds(low, high)
            mid = math.sqrt(low * high)
        twin = self._estimator.twin
        return SearchAnswer(bound, ended, low, mid, high, self.settings.confidence, tuple(self._verdicts), twin)

    # The next stage.

    def _next(self, elapsed_s: float) -> StagePlan | None:
        settings = self.settings
        if self._voids >= _MOST_VOID:
            return self._end_with("client" if self._verdicts[-1].client_limited else "void")
        if not self._counting():
            return self._plan("probe", min(settings.start_rate, self._limit()), 8, 40)
        low, high = self._bounds()
        if high is None:
            assert low is not None  # noqa: S101  # every counting stage met or missed
            return self._raise(low)
        if low is None:
            return self._lower(high)
        return self._close_in(elapsed_s, low, high)

    def _raise(self, low: float) -> StagePlan | None:
        """Go up: nothing missed yet."""
        limit = self._limit()
        if low >= limit * 0.999:
            return self._end_with("client" if limit < self.settings.max_rate else "max_rate")
        return self._plan("bracket", min(low * self._growth(), limit), 20, 80)

    def _lower(self, high: float) -> StagePlan | None:
        """Go down: nothing met yet."""
        lowest = min((result for result, _ in self._counting()), key=lambda result: result.plan.rate)
        if _failed_share(lowest) >= _NEARLY_ALL:
            if high * (_median(lowest, "ended_s") or 0.0) < _IDLE_CONCURRENCY or high < _SELDOM:
                return self._end_with("failed")
        elif high * self._service_s(high) < _IDLE_CONCURRENCY:
            return self._end_with("idle_engine")
        return self._plan("bracket", high / 3, 12, 80)

    def _close_in(self, elapsed_s: float, low: float, high: float) -> StagePlan | None:
        """Narrow the bracket, then stay at the estimate."""
        guess, middle = self._estimator.guess, math.sqrt(low * high)
        if guess is not None and not self._is_lost():
            middle = min(max(guess, low / 1.1), high * 1.1)
        last = self._counting()[-1][0].plan.rate
        settled = guess is not None and abs(math.log(middle / last)) <= _NEAR_GUESS
        self._at_saturation = self._at_saturation or settled or high / low <= _NEAR
        if self._at_saturation:
            return self._next_at_saturation(elapsed_s, middle)
        return self._plan("bisect", middle, 40, 150)

    def _next_at_saturation(self, elapsed_s: float, middle: float) -> StagePlan | None:
        settings = self.settings
        if self._is_narrow(_MAYBE_NARROW) and self._saturation_stages >= _FEWEST_SATURATION_STAGES:
            self._learn_for_the_answer()
            if self._is_narrow():
                return self._end_with("interval")
        offset = 0.0 if self._is_lost() else _SATURATION_OFFSETS[self._saturation_stages % len(_SATURATION_OFFSETS)]
        rate = min(middle * math.exp(offset), self._limit())
        service = self._service_s(rate)
        left = settings.budget_s - elapsed_s - (1 + _WARMUP_SERVICES) * service
        seconds = min(max(_SATURATION_REQUESTS / rate, _SATURATION_SERVICES * service), settings.budget_s / 6, left)
        requests = round(seconds * rate)
        if requests < _FEWEST_REQUESTS:
            self._learn_for_the_answer()
            return self._end_with("budget")
        return self._plan("edge", rate, requests, requests)

    def _is_lost(self) -> bool:
        """Return whether stages around the twin's guess failed to show the saturation point: then halve the bracket."""
        if self._estimator.estimate is not None:
            return False
        first = [judged.share for _, judged in self._counting() if judged.plan.purpose == "edge"][:_AGREEING_STAGES]
        far = len(first) == _AGREEING_STAGES and sum(first) in {0, _AGREEING_STAGES}
        return far or self._saturation_stages >= _TRUSTED_STAGES

    def _is_narrow(self, slack: float = 1.0) -> bool:
        estimate = self._estimator.estimate
        return estimate is not None and estimate.width <= self.settings.relative_interval * slack

    def _learn_for_the_answer(self) -> None:
        low, high = self._bounds()
        if low is not None and high is not None and self._saturation_stages:
            self._estimator.learn([counted for counted, _ in self._counting()], low, high, last=True)

    def _plan(self, purpose: Purpose, rate: float, least: int, most: int) -> StagePlan:
        warmup = max(_FEWEST_WARMUP / rate, _WARMUP_SERVICES * self._service_s(rate))
        if purpose in {"probe", "bracket"}:
            warmup = max(_FEWEST_WARMUP / rate, self._service_s(rate))
        return StagePlan(len(self._results), rate, purpose, warmup, least, most)

    def _end_with(self, how: Ended) -> StagePlan | None:
        self._ended = how
        return None

    # Results so far.

    def _counting(self) -> list[tuple[StageResult, StageVerdict]]:
        """Return the stages that count: neither void nor client-limited, and with requests."""
        return [
            (result, judged)
            for result, judged in zip(self._results, self._verdicts, strict=True)
            if not result.void and not result.client_limited and result.requests
        ]

    def _met(self, judged: StageVerdict) -> bool:
        if judged.decision is Decision.UNDECIDED:
            return judged.share >= self.settings.objective and not judged.unstable
        return judged.decision is Decision.MET

    def _bounds(self) -> tuple[float | None, float | None]:
        """Return the highest rate that met below the lowest that missed, and the latter."""
        counting = [(judged.plan.rate, self._met(judged)) for _, judged in self._counting()]
        high = min((rate for rate, met in counting if not met), default=None)
        low = max((rate for rate, met in counting if met and (high is None or rate < high)), default=None)
        return low, high

    def _sure_bounds(self, low: float, high: float) -> tuple[float, float]:
        """Return `_bounds` by stages whose interval excludes the objective: close ones may differ by chance.

        Uses the arrival rates: a stage may have met because fewer requests arrived than planned, or by chance.
        """
        objective, counting = self.settings.objective, self._counting()
        rates = [result.plan.rate for result, _ in counting]
        above = [
            max(result.plan.rate, _arrival_rate(result))
            for result, judged in counting
            if result.plan.rate >= high and judged.share_high < objective
        ]
        below = [
            min(result.plan.rate, _arrival_rate(result)) * math.exp(-_CHANCE_MARGIN)
            for result, judged in counting
            if result.plan.rate <= low and judged.share_low > objective
        ]
        return max(below, default=min(rates)), min(above, default=max(rates))

    def _limit(self) -> float:
        """Return the highest rate to try: --max-rate, or what the client can send."""
        beyond = [judged.plan.rate for judged in self._verdicts if judged.client_limited]
        # A rate that was sent once can be sent again: a failure there was a disturbance of the host.
        can_send = max(self._sent(), min(beyond, default=math.inf) * 0.8)
        return min(self.settings.max_rate, can_send)

    def _sent(self) -> float:
        """Return the highest rate that the client sent in time, requests/s."""
        return max((judged.plan.rate for _, judged in self._counting()), default=0.0)

    def _growth(self) -> float:
        """Return the factor on the rate: larger while latencies are those of the first stage."""
        counting = self._counting()
        first, last = counting[0][0], counting[-1][0]
        slower = [
            (_median(last, name) or 0.0) > 1.2 * (_median(first, name) or math.inf) for name in ("ttft_s", "tpot_s")
        ]
        return 2.0 if any(slower) else 4.0

    def _service_s(self, rate: float) -> float:
        """Return the median duration of a request at about this rate, seconds; 0 if unknown."""
        near = sorted(self._counting(), key=lambda pair: abs(math.log(pair[1].plan.rate / rate)))
        met = [pair for pair in near if self._met(pair[1])] or near
        times = (_median(result, "e2e_s") for result, _ in met)
        return next((time for time in times if time is not None), 0.0)


def _arrival_rate(result: StageResult) -> float:
    """Return the requests/s that arrived; the planned rate if there are too few."""
    requests = result.requests
    seconds = requests[-1].due_s - requests[0].due_s
    return (len(requests) - 1) / seconds if seconds > 0 else result.plan.rate


def _failed_share(result: StageResult) -> float:
    return sum(request.failed for request in result.requests) / len(result.requests)


def _median(result: StageResult, name: str) -> float | None:
    values = [value for request in result.requests if (value := getattr(request, name)) is not None]
    return median(values) if values else None
