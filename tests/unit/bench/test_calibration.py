"""The search on an engine of known capacity; `python -m tests.bench.capacity calibrate` runs all, many times."""

from __future__ import annotations

import math

import pytest

from tests.bench.capacity.calibration import search_once
from tests.bench.capacity.engines import KNOWN
from tests.bench.capacity.truth import misses, read


@pytest.mark.timeout(600)
def test_search_finds_a_known_edge() -> None:
    # The quickest to simulate.
    run = search_once("batch_slots", seed=0, truth=read()["batch_slots"].rate, budget_s=600)
    assert run.bound == "edge"
    assert run.seconds < 630
    assert abs(run.mid - 1) < 0.03
    assert run.holds
    # A twin cannot show all: that is in every interval, however well it fits.
    assert (run.high - run.low) / run.mid > 0.03


@pytest.mark.parametrize("name", KNOWN)
def test_truth_fits_the_simulated_engine(name: str) -> None:
    """20,000 requests: neighbours miss together, so the share is known to about a third."""
    truth, kind = read()[name], KNOWN[name][0]
    odds = misses(name, truth.rate, 123, 20_000) / (1 - kind.objective)
    assert abs(math.log(odds)) < 0.5
