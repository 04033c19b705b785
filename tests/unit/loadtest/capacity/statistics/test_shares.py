import random

import pytest

from loadtest.capacity.statistics.shares import (
    dispersion,
    judge_share,
    normal_quantile,
    rises,
    student_quantile,
    wilson,
)


def test_quantiles_match_tables() -> None:
    assert normal_quantile(0.95) == pytest.approx(1.95996, abs=1e-4)
    for degrees, value in ((1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)):
        assert student_quantile(0.95, degrees) == pytest.approx(value, abs=6e-4)
    assert student_quantile(0.99, 1) == pytest.approx(63.657, abs=6e-4)
    assert student_quantile(0.90, 1) == pytest.approx(6.314, abs=6e-4)


def test_wilson_matches_statsmodels() -> None:
    low, high = wilson(0.95, 100, normal_quantile(0.95))  # statsmodels: proportion_confint(95, 100, method="wilson")
    assert (low, high) == (pytest.approx(0.8882, abs=1e-4), pytest.approx(0.9785, abs=1e-4))


def test_no_requests_no_information() -> None:
    assert judge_share([], 1.96).low == 0.0
    assert judge_share([], 1.96).high == 1.0


def test_correlated_misses_count_less() -> None:
    draw = random.Random(1)  # noqa: S311
    independent = [draw.random() > 0.1 for _ in range(2000)]
    together = [good for good in independent[:100] for _ in range(20)]
    assert dispersion(independent) < 2
    assert dispersion(together) > 5
    wide, narrow = judge_share(together, 1.96), judge_share(independent, 1.96)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


@pytest.mark.parametrize(
    ("requests", "student"), [(20, 3.182), (40, 2.365), (100, 2.093), (400, 2.093)], ids=["4", "8", "20", "at most 20"]
)
def test_few_batches_widen_interval(requests: int, student: float) -> None:
    good = [place >= requests // 4 for place in range(requests)]  # the first quarter missed
    share = judge_share(good, 1.96)
    assert (share.low, share.high) == pytest.approx(wilson(0.75, share.effective, student), rel=2e-3)


def test_interval_covers_queue_share() -> None:
    """Two-state Markov chain with long good and short bad periods, like a queue; 10 % are bad in the long run."""
    draw = random.Random(7)  # noqa: S311
    covered = 0
    for _ in range(200):
        bad, flags = draw.random() < 0.1, []
        for _ in range(2000):
            bad = draw.random() >= 0.1 if bad else draw.random() < 0.1 / 9
            flags.append(not bad)
        share = judge_share(flags, 1.96)
        covered += share.low <= 0.9 <= share.high
    assert covered >= 180


def test_growing_latency_is_detected() -> None:
    draw = random.Random(3)  # noqa: S311
    steady = [draw.expovariate(1) for _ in range(400)]
    growing = [0.1 + number / 400 + draw.expovariate(10) for number in range(400)]
    assert not rises(steady)
    assert rises(growing)
    assert not rises(growing[:20])


def test_small_steady_growth_is_no_overload() -> None:
    assert not rises([0.1 + number / 8000 for number in range(400)])
