"""The search against engines that are functions of the rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest

from loadtest.capacity.answer import SearchAnswer, SearchSettings, SloLimits
from loadtest.capacity.search import estimate
from loadtest.capacity.search.estimate import Estimator
from loadtest.capacity.search.search import Search
from loadtest.capacity.stage import Decision, StagePlan, StageRequest, StageResult

Engine = Callable[[float], float]  # rate to the share of good requests


def request(due_s: float, *, good: bool, e2e_s: float = 0.5) -> StageRequest:
    return StageRequest(due_s, good, 0.1 if good else 1.0, 0.02, e2e_s, 100, 20)


def run_stage(search: Search, plan: StagePlan, share: float, random: Random) -> StageResult:
    requests: list[StageRequest] = []
    due = plan.warmup_s
    while search.decide(plan, requests) is Decision.MORE:
        due += random.expovariate(plan.rate)
        requests.append(request(due, good=random.random() < share))
    return StageResult(plan, tuple(requests), due)


def run_search(engine: Engine, settings: SearchSettings, seed: int = 1) -> tuple[SearchAnswer, float]:
    search, random, elapsed = Search(settings), Random(seed), 0.0  # noqa: S311
    while (plan := search.next_stage(elapsed)) is not None:
        result = run_stage(search, plan, engine(plan.rate), random)
        elapsed += result.duration_s
        search.add(result)
    return search.answer(), elapsed


def logistic_engine(capacity: float, slope: float = 20.0) -> Engine:
    """Return an engine at which 95 % of requests are good at `capacity`."""
    return lambda rate: 1 / (1 + math.exp(slope * math.log(rate / capacity) - math.log(19)))


@pytest.mark.parametrize("capacity", [0.2, 3.0, 40.0, 700.0])
def test_capacity_is_found_anywhere(capacity: float) -> None:
    answer, _ = run_search(logistic_engine(capacity), SearchSettings(budget_s=20_000 / capacity))
    assert answer.bound == "edge"
    assert answer.low is not None
    assert answer.high is not None
    assert answer.low <= capacity <= answer.high
    assert answer.mid == pytest.approx(capacity, rel=0.05)


def test_narrow_interval_ends_search() -> None:
    answer, _ = run_search(logistic_engine(20.0), SearchSettings(budget_s=3600, relative_interval=0.1))
    assert answer.ended == "interval"
    assert answer.relative_interval is not None
    assert answer.relative_interval <= 0.1


def test_budget_ends_search() -> None:
    answer, elapsed = run_search(logistic_engine(2.0, slope=8.0), SearchSettings(budget_s=300))
    assert answer.ended == "budget"
    assert answer.bound == "edge"
    assert elapsed <= 330


def test_floor_at_max_rate() -> None:
    answer, _ = run_search(lambda _rate: 1.0, SearchSettings(max_rate=50.0))
    assert (answer.bound, answer.ended, answer.high) == ("floor", "max_rate", None)
    assert answer.low == pytest.approx(50.0)


def test_missing_idle_engine_never_meets() -> None:
    answer, elapsed = run_search(lambda _rate: 0.5, SearchSettings())
    assert (answer.bound, answer.ended) == ("never_met", "idle_engine")
    assert answer.low is answer.mid is answer.high is None
    assert elapsed < 900


def run_failing(search: Search, fails: Callable[[float, int], bool], ended_s: float) -> list[float]:
    """Run a search whose requests fail `ended_s` after they were due; returns the rates that were tried."""
    rates, elapsed = [], 0.0
    while (plan := search.next_stage(elapsed)) is not None:
        requests: list[StageRequest] = []
        while search.decide(plan, requests) is Decision.MORE:
            due, failed = plan.warmup_s + len(requests) / plan.rate, fails(plan.rate, len(requests))
            times = (None, None, None) if failed else (0.1, 0.02, 0.5)
            requests.append(StageRequest(due, not failed, *times, 100, 20, ended_s=ended_s if failed else 0.5))
        rates.append(plan.rate)
        elapsed += requests[-1].due_s + ended_s
        search.add(StageResult(plan, tuple(requests), requests[-1].due_s + ended_s))
    return rates


@pytest.mark.parametrize(
    ("ended_s", "rates"),
    [(0.0, [1.0]), (0.01, [1.0]), (30.0, [1.0, 1 / 3])],
    ids=["connection refused", "400 at once", "timeouts, which a lower rate might avoid"],
)
def test_failing_server_ends_search_early(ended_s: float, rates: list[float]) -> None:
    search = Search(SearchSettings())
    assert run_failing(search, lambda *_: True, ended_s) == rates
    answer = search.answer()
    assert (answer.bound, answer.ended, answer.low) == ("never_met", "failed", None)


def test_half_failing_server_is_searched_to_its_lowest_rate() -> None:
    search = Search(SearchSettings())
    rates = run_failing(search, lambda _rate, number: number % 2 == 0, 0.01)
    assert min(rates) * 0.5 < 0.15  # requests come alone
    assert (search.answer().bound, search.answer().ended) == ("never_met", "idle_engine")


def test_limited_rate_is_found_below_its_rejections() -> None:
    search = Search(SearchSettings(start_rate=60.0, budget_s=300))
    run_failing(search, lambda rate, _number: rate > 10, 0.01)
    low = search.answer().low
    assert low is not None
    assert low > 5


def test_floor_at_client_limit() -> None:
    search, random, elapsed = Search(SearchSettings()), Random(1), 0.0  # noqa: S311
    while (plan := search.next_stage(elapsed)) is not None:
        result = run_stage(search, plan, 1.0, random)
        limited = plan.rate > 30
        elapsed += result.duration_s
        search.add(StageResult(plan, result.requests, result.duration_s, client_limited=limited))
    answer = search.answer()
    assert (answer.bound, answer.ended) == ("floor", "client")
    assert answer.low is not None
    assert 15 <= answer.low <= 30


def test_sent_rate_is_tried_again() -> None:
    search, random, elapsed, late = Search(SearchSettings()), Random(2), 0.0, 0  # noqa: S311
    while (plan := search.next_stage(elapsed)) is not None:
        result = run_stage(search, plan, logistic_engine(20.0)(plan.rate), random)
        disturbed = plan.purpose == "edge" and late < 2
        late += disturbed
        elapsed += result.duration_s
        search.add(StageResult(plan, result.requests, result.duration_s, client_limited=disturbed))
    answer = search.answer()
    assert answer.ended == "interval"
    assert answer.low is not None
    assert answer.high is not None
    assert answer.low <= 20.0 <= answer.high


def test_persistent_client_limit_ends_search() -> None:
    search, random, elapsed = Search(SearchSettings()), Random(1), 0.0  # noqa: S311
    while (plan := search.next_stage(elapsed)) is not None:
        result = run_stage(search, plan, logistic_engine(20.0)(plan.rate), random)
        elapsed += result.duration_s
        search.add(StageResult(plan, result.requests, result.duration_s, client_limited=plan.purpose == "edge"))
    answer = search.answer()
    assert (answer.bound, answer.ended) == ("edge", "client")
    assert elapsed < 300
    assert answer.low is not None
    assert answer.high is not None
    assert answer.low <= 20.0 <= answer.high


def test_three_void_stages_end_search() -> None:
    search, random = Search(SearchSettings()), Random(1)  # noqa: S311
    rates = []
    while (plan := search.next_stage(0.0)) is not None:
        rates.append(plan.rate)
        result = run_stage(search, plan, 0.0, random)
        search.add(StageResult(plan, result.requests, result.duration_s, void=("somebody else used the server",)))
    assert rates == [1.0, 1.0, 1.0]
    assert search.answer().ended == "void"
    assert search.answer().bound == "floor"
    assert search.answer().low == 0.0


def test_void_stage_is_repeated() -> None:
    search, random = Search(SearchSettings()), Random(1)  # noqa: S311
    plan = search.next_stage(0.0)
    assert plan is not None
    result = run_stage(search, plan, 1.0, random)
    search.add(StageResult(plan, result.requests, result.duration_s, void=("restarted",)))
    repeated = search.next_stage(10.0)
    assert repeated is not None
    assert (repeated.rate, repeated.number) == (plan.rate, plan.number + 1)


def test_hopeless_stage_ends_early() -> None:
    search = Search(SearchSettings())
    plan = StagePlan(0, 100.0, "bracket", 0.0, 20, 80)
    misses = [request(index / 100, good=False) for index in range(15)]
    assert search.decide(plan, misses[:10]) is Decision.MORE
    assert search.decide(plan, misses) is Decision.MISSED


def test_undecided_stage_runs_to_its_maximum() -> None:
    search = Search(SearchSettings())
    plan = StagePlan(0, 10.0, "bisect", 0.0, 40, 150)
    mixed = [request(index / 10, good=index % 20 != 3) for index in range(150)]  # 95 % good: at the objective
    assert search.decide(plan, mixed[:100]) is Decision.MORE
    assert search.decide(plan, mixed) is Decision.UNDECIDED


def test_growing_queue_is_not_met() -> None:
    search = Search(SearchSettings())
    plan = StagePlan(0, 10.0, "edge", 0.0, 200, 200)
    growing = [StageRequest(index / 10, True, 0.1 + index / 400, 0.02, 1.0, 100, 20) for index in range(200)]
    assert search.decide(plan, growing) is Decision.MISSED
    steady = [request(index / 10, good=True) for index in range(200)]
    assert search.decide(plan, steady) is Decision.MET


def test_wrong_twin_does_not_mislead_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_LONG_RUN", 4_000)
    monkeypatch.setattr(estimate, "_LAST_LONG_RUN", 20_000)
    # No engine has these latencies, so the twin's guesses miss clearly.
    settings = SearchSettings(budget_s=600, limits=SloLimits(ttft_s=0.5, tpot_s=0.05))
    answer, elapsed = run_search(logistic_engine(20.0, slope=60.0), settings)
    assert answer.ended == "interval"
    assert answer.low is not None
    assert answer.high is not None
    assert answer.low <= 20.0 <= answer.high
    assert elapsed < 200


def test_wrong_guess_is_left_after_two_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    def guess_too_low(self: Estimator, *_stages: object, **_how: object) -> None:
        self.guess = 14.0

    monkeypatch.setattr(Estimator, "learn", guess_too_low)
    answer, _ = run_search(logistic_engine(20.0, slope=60.0), SearchSettings(budget_s=300))
    first, second, third, *_ = [stage.plan.rate for stage in answer.stages if stage.plan.purpose == "edge"]
    assert max(first, second) < 16
    assert third > 20


@pytest.mark.parametrize("seed", range(5))
def test_bracket_without_estimate_holds(seed: int) -> None:
    answer, _ = run_search(logistic_engine(20.0), SearchSettings(budget_s=30), seed)
    assert answer.ended == "budget"
    assert answer.low is not None
    assert answer.high is not None
    assert answer.low <= 20.0 <= answer.high


def test_arrival_rates_bound_the_capacity() -> None:
    search = Search(SearchSettings())
    for number, (rate, arrival_rate, good) in enumerate([(1.0, 1.0, True), (8.0, 7.0, True), (16.0, 18.0, False)]):
        plan = StagePlan(number, rate, "edge", 0.0, 250, 250)
        requests = tuple(request(index / arrival_rate, good=good) for index in range(250))
        search.add(StageResult(plan, requests, 250 / arrival_rate))
    answer = search.answer()
    assert answer.low == pytest.approx(7.0 * math.exp(-0.15))
    assert answer.high == pytest.approx(18.0)


def test_counting_stage_forgets_void_ones() -> None:
    search, random, states = Search(SearchSettings()), Random(1), [True, True, False, True, True, False]  # noqa: S311
    for void in states:
        plan = search.next_stage(0.0)
        assert plan is not None
        result = run_stage(search, plan, 1.0, random)
        search.add(StageResult(plan, result.requests, result.duration_s, void=("restarted",) if void else ()))
    assert search.next_stage(0.0) is not None


def test_stage_with_its_warm_up_fits_the_budget() -> None:
    # A stage of 8 requests at 1/s after 3 of warm-up takes 11 s.
    search = Search(SearchSettings(budget_s=100.0))
    assert search.next_stage(88.9) is not None
    assert search.next_stage(89.1) is None
    assert search.answer().ended == "budget"
