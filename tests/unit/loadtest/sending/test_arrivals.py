import math
from collections import Counter
from collections.abc import Sequence
from itertools import count, islice, pairwise
from statistics import correlation, fmean, variance

import pytest

from loadtest.input_error import InputError
from loadtest.sending.arrivals import ArrivalProcess, replay, schedule, shard

REQUESTS = 40_000
RATE = 50.0
STANDARD_ERRORS = 4.0  # a correct schedule fails 1 check in 16,000; with fixed seeds, none by chance
SEEDS = (0, 1, 2023)


def by_shards(process: ArrivalProcess, seed: int, workers: int, burstiness: float = 1.0) -> list[float]:
    """Return the due times of all workers: each computes the schedule and keeps its share."""
    parts = [
        list(
            shard(
                islice(schedule(process, rate=RATE, seed=seed, burstiness=burstiness), REQUESTS),
                worker,
                workers,
            )
        )
        for worker in range(workers)
    ]
    return sorted(time for part in parts for time in part)


def by_own_schedules(process: ArrivalProcess, seed: int, workers: int) -> list[float]:
    """Return the due times of a wrong split: each worker makes a slower schedule from the same seed."""
    part = list(islice(schedule(process, rate=RATE / workers, seed=seed), REQUESTS // workers))
    return sorted(part * workers)


def gaps_of(times: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise([0.0, *times])]


def autocorrelation(values: Sequence[float], lag: int) -> float:
    return correlation(values[lag:], values[:-lag])


def dispersion(times: Sequence[float], window_s: float) -> tuple[float, int]:
    """Return variance over mean of the counts in windows of this length, and the number of windows."""
    windows = int(times[-1] / window_s)
    counts = Counter(int(time / window_s) for time in times)
    sizes = [counts[window] for window in range(windows)]
    return variance(sizes) / fmean(sizes), windows


@pytest.mark.parametrize("process", ["constant", "poisson", "gamma"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_shards_add_up_to_the_schedule(process: ArrivalProcess, workers: int) -> None:
    whole = list(islice(schedule(process, rate=RATE, seed=3, burstiness=0.5), REQUESTS))
    assert by_shards(process, 3, workers, burstiness=0.5) == whole


@pytest.mark.parametrize("process", ["constant", "poisson", "gamma"])
def test_due_times_ascend_from_zero(process: ArrivalProcess) -> None:
    times = list(islice(schedule(process, rate=RATE, seed=3, burstiness=0.2), REQUESTS))
    assert times[0] >= 0
    assert times == sorted(times)


def test_constant_arrivals_do_not_drift() -> None:
    times = list(islice(schedule("constant", rate=3, seed=0), 300_001))
    assert times[0] == 0
    assert times[300_000] == 100_000
    assert times[1] == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_poisson_count_dispersion_is_one(seed: int, workers: int) -> None:
    # (windows - 1) * variance/mean is chi-squared, windows - 1 degrees of freedom; its variance is twice that
    index, windows = dispersion(by_shards("poisson", seed, workers), window_s=20 / RATE)
    assert abs(index - 1) < STANDARD_ERRORS * math.sqrt(2 / (windows - 1))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_poisson_gaps_are_independent_exponentials(seed: int, workers: int) -> None:
    gaps = gaps_of(by_shards("poisson", seed, workers))
    error = STANDARD_ERRORS / math.sqrt(len(gaps))
    assert abs(fmean(gaps) * RATE - 1) < error  # the standard deviation of an exponential is its mean
    for lag in (1, 2, 3, 4):
        assert abs(autocorrelation(gaps, lag)) < error  # of independent gaps: standard error 1/sqrt(n)
    # Kolmogorov-Smirnov: sqrt(n) * the largest distance exceeds 2 with a chance of 2 * exp(-2 * 2**2), 0.07 %
    ranked = enumerate(sorted(gaps))
    distance = max(abs((rank + 0.5) / len(gaps) - (1 - math.exp(-gap * RATE))) for rank, gap in ranked)
    assert distance * math.sqrt(len(gaps)) < 2.0


@pytest.mark.parametrize("workers", [2, 4])
def test_checks_reject_workers_with_equal_gaps(workers: int) -> None:
    times = by_own_schedules("poisson", 0, workers)
    index, windows = dispersion(times, window_s=20 / RATE)
    assert index - 1 > STANDARD_ERRORS * math.sqrt(2 / (windows - 1))
    assert abs(autocorrelation(gaps_of(times), 1)) > STANDARD_ERRORS / math.sqrt(len(times))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_gap_variation_fits_theory(seed: int, burstiness: float) -> None:
    gaps = gaps_of(by_shards("gamma", seed, 4, burstiness))
    expected = 1 / math.sqrt(burstiness)  # coefficient of variation of a gamma distribution of this shape
    assert abs(fmean(gaps) * RATE - 1) < STANDARD_ERRORS * expected / math.sqrt(len(gaps))
    # delta method, gamma's skewness 2/sqrt(k) and kurtosis 3 + 6/k: relative variance (1/2 + 1/(2k)) / n
    error = expected * math.sqrt((0.5 + 0.5 / burstiness) / len(gaps))
    assert abs(math.sqrt(variance(gaps)) / fmean(gaps) - expected) < STANDARD_ERRORS * error
    assert abs(autocorrelation(gaps, 1)) < STANDARD_ERRORS / math.sqrt(len(gaps))


def test_seed_determines_the_schedule() -> None:
    def head(seed: int) -> list[float]:
        return list(islice(schedule("poisson", rate=2, seed=seed), 50))

    assert head(1) == head(1)
    assert not set(head(1)) & set(head(2))


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf])
def test_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match=r"^--rate: .* is not a rate; give requests/s above 0"):
        schedule("poisson", rate=rate, seed=0)


@pytest.mark.parametrize("burstiness", [0, -0.5, math.nan])
def test_impossible_burstiness_is_refused(burstiness: float) -> None:
    with pytest.raises(InputError, match=r"^--burstiness: "):
        schedule("gamma", rate=1, seed=0, burstiness=burstiness)


def test_unknown_process_error_lists_known_ones() -> None:
    with pytest.raises(InputError, match=r"^--arrival: 'weibull' is unknown; use closed, constant, poisson or gamma"):
        schedule("weibull", rate=1, seed=0)  # type: ignore[arg-type]  # what a person may type


def test_recorded_times_replay_at_any_speed() -> None:
    assert list(replay([0, 1.5, 4])) == [0, 1.5, 4]
    assert list(replay([0, 1.5, 4], speed=2)) == [0, 0.75, 2]


@pytest.mark.parametrize("speed", [0, -2, math.nan, math.inf])
def test_impossible_replay_speed_is_refused(speed: float) -> None:
    with pytest.raises(InputError, match=r"^--trace-speed: "):
        replay([0], speed=speed)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_each_item_goes_to_one_shard(workers: int) -> None:
    parts = [list(shard(range(100), worker, workers)) for worker in range(workers)]
    assert sorted(item for part in parts for item in part) == list(range(100))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_endless_sequence_is_read_lazily() -> None:
    assert list(islice(shard(count(), 1, 4), 3)) == [1, 5, 9]


@pytest.mark.parametrize(("worker", "workers"), [(-1, 2), (2, 2), (0, 0)])
def test_impossible_shard_is_refused(worker: int, workers: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        shard([1], worker, workers)
