from __future__ import annotations

import random

import pytest

from loadtest.results.distribution import Distribution

EDGES = (0.01, 0.1, 1.0)


def made_of(values: list[float]) -> Distribution:
    distribution = Distribution(EDGES)
    distribution.add_all(values)
    return distribution


@pytest.mark.parametrize("percent", [1, 50, 90, 95, 99, 99.9])
def test_percentiles_are_within_a_per_mille(percent: float) -> None:
    draw = random.Random(7)  # noqa: S311  # a repeatable test
    values = sorted(draw.lognormvariate(-4, 2) for _ in range(20_000))
    exact = values[max(0, -(-len(values) * percent // 100).__int__() - 1)]
    assert made_of(values).percentile(percent) == pytest.approx(exact, rel=0.001, abs=2e-6)


def test_merging_equals_recording_in_one_place() -> None:
    draw = random.Random(8)  # noqa: S311  # a repeatable test
    values = [draw.expovariate(10) for _ in range(3_000)]
    together, parts = made_of(values), Distribution(EDGES)
    for part in (values[:10], values[10:2000], [], values[2000:]):
        parts.merge(Distribution.from_wire(made_of(part).to_wire()))
    assert parts.summary().count == together.summary().count == 3_000
    assert parts.summary().p99 == together.summary().p99
    assert parts.summary().mean == pytest.approx(together.summary().mean)
    assert parts.cumulative() == together.cumulative()


def test_bucket_includes_its_upper_edge() -> None:
    assert made_of([0.01, 0.0100001, 0.1, 5.0]).cumulative() == [(0.01, 1), (0.1, 3), (1.0, 3), (float("inf"), 4)]


def test_empty_distribution_has_no_figures() -> None:
    summary = Distribution(EDGES).summary()
    assert summary.count == 0
    assert summary.mean is summary.p50 is summary.max is None


def test_different_edges_do_not_merge() -> None:
    with pytest.raises(ValueError, match="bucket edges"):
        made_of([1]).merge(Distribution((1.0,)))


def test_value_beyond_range_keeps_exact_maximum() -> None:
    summary = made_of([0.0, 10_000.0]).summary()
    assert (summary.count, summary.max) == (2, 10_000.0)
