"""Fit of misses against the rate: the saturation point and its interval."""

from __future__ import annotations

import math
from random import Random
from statistics import median

import pytest

from loadtest.capacity.statistics.saturation_curve import RateBatch, Slope, fit_saturation_curve, log_odds

OBJECTIVE, CAPACITY, SLOPE = 0.95, 15.1, 20.0


def batches(count: int) -> list[RateBatch]:
    """Return batches of 50 requests around the capacity that miss exactly as the curve says."""
    target = log_odds(1 - OBJECTIVE)
    rates = [math.log(15.0) + (-0.04, 0.0, 0.04)[number % 3] for number in range(count)]
    return [RateBatch(rate, 50, 50 / (1 + math.exp(-(target + SLOPE * (rate - math.log(CAPACITY)))))) for rate in rates]


@pytest.mark.parametrize("count", range(20, 50))
def test_narrow_interval_is_found(count: int) -> None:
    """Interval narrower than the coarse grid: its ends lie between two points."""
    found = fit_saturation_curve(
        batches(count), OBJECTIVE, 0.95, math.log(15.0), least_dispersion=0.1, prior=Slope(SLOPE, sigma=0.2)
    )
    assert found is not None
    assert found.low < CAPACITY < found.high
    assert found.width < 0.011


def test_no_estimate_if_all_batches_met() -> None:
    met = [RateBatch(math.log(rate), 50, 1.0) for rate in range(10, 20)]
    assert fit_saturation_curve(met, OBJECTIVE, 0.95, math.log(15.0)) is None


def test_scatter_by_stage_widens_interval() -> None:
    """The same scatter, once by stage and once by batch."""
    target, widths = log_odds(1 - OBJECTIVE), []
    for by_stage in (True, False):
        scattered = []
        for stage in range(9):
            rate = math.log(15.0) + (-0.04, 0.0, 0.04)[stage % 3] + stage / 1e4
            expected = 50 / (1 + math.exp(-(target + SLOPE * (rate - math.log(CAPACITY)))))
            for batch in range(4):
                sign = 1 if (stage if by_stage else batch) % 2 else -1
                scattered.append(RateBatch(rate, 50, expected * (1 + 0.8 * sign)))
        found = fit_saturation_curve(scattered, OBJECTIVE, 0.95, math.log(15.0), prior=Slope(SLOPE, sigma=0.2))
        assert found is not None
        widths.append(found.width)
    assert widths[0] > 1.5 * widths[1]


def test_flat_curve_gives_wide_interval() -> None:
    """Engine that stalls now and then: slope 4, misses in bursts (dispersion 20), 38 stages of 250 requests."""
    target, slope, dispersion, stages, requests = log_odds(1 - OBJECTIVE), 4.0, 20.0, 38, 250
    expected = requests * (1 - OBJECTIVE)
    widths = []
    for seed in range(20):
        random = Random(seed)  # noqa: S311  # repeatable
        uneven = []
        for number in range(stages):
            rate = math.log(CAPACITY) + (-0.04, 0.0, 0.04)[number % 3]
            share = 1 / (1 + math.exp(-(target + slope * (rate - math.log(CAPACITY)))))
            burst = random.gammavariate(expected / dispersion, dispersion) / expected  # 1 in the mean
            uneven.append(RateBatch(rate, requests, min(float(requests), requests * share * burst)))
        found = fit_saturation_curve(uneven, OBJECTIVE, 0.95, math.log(CAPACITY))
        if found is not None:
            widths.append(found.width)
    # Interval for a known slope: that of a binomial share's log odds, over the slope.
    knowable = 2 * 1.96 * math.sqrt(dispersion / (stages * requests * OBJECTIVE * (1 - OBJECTIVE))) / slope
    assert len(widths) >= 16
    assert median(widths) > 0.9 * knowable
