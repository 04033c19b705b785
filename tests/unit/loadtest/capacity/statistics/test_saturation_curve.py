"""The curve of misses against the rate: its edge and the interval."""

from __future__ import annotations

import math
from random import Random
from statistics import median

import pytest

from loadtest.capacity.statistics.saturation_curve import RateBatch, Slope, fit_edge, log_odds

OBJECTIVE, EDGE, SLOPE = 0.95, 15.1, 20.0


def batches(count: int) -> list[RateBatch]:
    """50 requests each around the edge, which miss exactly as the curve says."""
    target = log_odds(1 - OBJECTIVE)
    rates = [math.log(15.0) + (-0.04, 0.0, 0.04)[number % 3] for number in range(count)]
    return [RateBatch(rate, 50, 50 / (1 + math.exp(-(target + SLOPE * (rate - math.log(EDGE)))))) for rate in rates]


@pytest.mark.parametrize("count", range(20, 50))
def test_however_narrow_the_interval_is_it_is_found(count: int) -> None:
    """Narrower than the coarse grid: its ends lie between two points of it."""
    found = fit_edge(
        batches(count), OBJECTIVE, 0.95, math.log(15.0), least_dispersion=0.1, believed=Slope(SLOPE, sigma=0.2)
    )
    assert found is not None
    assert found.low < EDGE < found.high
    assert found.width < 0.011


def test_there_is_no_edge_among_batches_that_all_met() -> None:
    met = [RateBatch(math.log(rate), 50, 1.0) for rate in range(10, 20)]
    assert fit_edge(met, OBJECTIVE, 0.95, math.log(15.0)) is None


def test_a_box_that_is_slower_for_whole_stages_makes_the_interval_wider() -> None:
    """The same batches, with the same scatter: here it goes with the stage, there it does not."""
    target, widths = log_odds(1 - OBJECTIVE), []
    for by_stage in (True, False):
        scattered = []
        for stage in range(9):
            rate = math.log(15.0) + (-0.04, 0.0, 0.04)[stage % 3] + stage / 1e4
            expected = 50 / (1 + math.exp(-(target + SLOPE * (rate - math.log(EDGE)))))
            for batch in range(4):
                sign = 1 if (stage if by_stage else batch) % 2 else -1
                scattered.append(RateBatch(rate, 50, expected * (1 + 0.8 * sign)))
        found = fit_edge(scattered, OBJECTIVE, 0.95, math.log(15.0), believed=Slope(SLOPE, sigma=0.2))
        assert found is not None
        widths.append(found.width)
    assert widths[0] > 1.5 * widths[1]


def test_where_misses_hardly_depend_on_the_rate_the_interval_is_as_wide_as_that_makes_it() -> None:
    """An engine that stalls by itself: slope 4, misses in bursts (dispersion 20), 38 stages of 250 requests."""
    target, slope, dispersion, stages, requests = log_odds(1 - OBJECTIVE), 4.0, 20.0, 38, 250
    expected = requests * (1 - OBJECTIVE)
    widths = []
    for seed in range(60):
        random = Random(seed)  # noqa: S311  # repeatable
        uneven = []
        for number in range(stages):
            rate = math.log(EDGE) + (-0.04, 0.0, 0.04)[number % 3]
            share = 1 / (1 + math.exp(-(target + slope * (rate - math.log(EDGE)))))
            burst = random.gammavariate(expected / dispersion, dispersion) / expected  # 1 in the mean
            uneven.append(RateBatch(rate, requests, min(float(requests), requests * share * burst)))
        found = fit_edge(uneven, OBJECTIVE, 0.95, math.log(EDGE))
        if found is not None:
            widths.append(found.width)
    # Of a binomial share's logarithm of the odds, over the slope: what can be known when the slope is.
    knowable = 2 * 1.96 * math.sqrt(dispersion / (stages * requests * OBJECTIVE * (1 - OBJECTIVE))) / slope
    assert len(widths) >= 50
    assert median(widths) > 0.9 * knowable
