"""Searches on engines of known capacity: a small sample of `python -m tests.bench.capacity calibrate`."""

from __future__ import annotations

import math
from statistics import median

import pytest

from tests.bench.capacity.calibration import calibrate
from tests.bench.capacity.engines import KNOWN
from tests.bench.capacity.truth import misses, read
from tests.rig.simulated_engine.engine_kinds import KINDS


@pytest.mark.timeout(600)
def test_intervals_hold_the_true_capacity() -> None:
    runs = list(calibrate(list(KINDS), range(1), jobs=2, budget_s=600))
    assert all(run.bound == "edge" for run in runs)
    assert all(run.seconds < 630 for run in runs)
    assert median(abs(run.mid - 1) for run in runs) < 0.03
    assert max(abs(run.mid - 1) for run in runs) < 0.08
    assert sum(run.holds for run in runs) >= len(runs) - 1
    # Every interval includes the error that a twin's fit cannot show.
    assert min((run.high - run.low) / run.mid for run in runs) > 0.03


@pytest.mark.parametrize("name", KNOWN)
def test_truth_matches_the_engines(name: str) -> None:
    """With 20,000 requests, whose misses are correlated, the share is known to about a third."""
    truth, kind = read()[name], KNOWN[name][0]
    odds = misses(name, truth.rate, 123, 20_000) / (1 - kind.objective)
    assert abs(math.log(odds)) < 0.5
