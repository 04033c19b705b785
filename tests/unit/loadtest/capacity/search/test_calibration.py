"""The search on two engines of known capacity; `python -m tests.bench.capacity calibrate` runs all, many times."""

from __future__ import annotations

import math

import pytest

from tests.bench.capacity.calibration import calibrate
from tests.bench.capacity.engines import KNOWN
from tests.bench.capacity.truth import misses, read

# Limits of different kinds, and the two quickest to simulate.
SAMPLE = ("batch_slots", "prefill_compute")


@pytest.mark.timeout(600)
def test_search_finds_known_edges() -> None:
    runs = list(calibrate(SAMPLE, range(1), jobs=2, budget_s=600))
    assert all(run.bound == "edge" for run in runs)
    assert all(run.seconds < 630 for run in runs)
    assert max(abs(run.mid - 1) for run in runs) < 0.03
    assert all(run.holds for run in runs)
    # What a twin cannot show is in every interval, however well it fits.
    assert min((run.high - run.low) / run.mid for run in runs) > 0.03


@pytest.mark.parametrize("name", KNOWN)
def test_truth_fits_the_simulated_engine(name: str) -> None:
    """20,000 requests: neighbours miss together, so the share is known to about a third."""
    truth, kind = read()[name], KNOWN[name][0]
    odds = misses(name, truth.rate, 123, 20_000) / (1 - kind.objective)
    assert abs(math.log(odds)) < 0.5
