"""The search on engines whose capacity is known, as `python -m tests.bench.capacity calibrate` does at length."""

from __future__ import annotations

import math
from statistics import median

import pytest

from tests.bench.capacity.calibration import calibrate
from tests.bench.capacity.engines import KNOWN
from tests.bench.capacity.truth import misses, read
from tests.rig.simulated_engine.engine_kinds import KINDS


@pytest.mark.timeout(600)
def test_edges_are_true_and_their_intervals_hold() -> None:
    runs = list(calibrate(list(KINDS), range(1), jobs=2, budget_s=600))
    assert all(run.bound == "edge" for run in runs)
    assert all(run.seconds < 630 for run in runs)
    assert median(abs(run.mid - 1) for run in runs) < 0.03
    assert max(abs(run.mid - 1) for run in runs) < 0.08
    assert sum(run.holds for run in runs) >= len(runs) - 1
    # What a twin cannot show is in every interval, however well it fits.
    assert min((run.high - run.low) / run.mid for run in runs) > 0.03


@pytest.mark.parametrize("name", KNOWN)
def test_truth_is_that_of_the_engine_as_it_is(name: str) -> None:
    """20,000 requests: neighbours miss together, so the share is known to about a third."""
    truth, kind = read()[name], KNOWN[name][0]
    odds = misses(name, truth.rate, 123, 20_000) / (1 - kind.objective)
    assert abs(math.log(odds)) < 0.5
