"""Rates of the last seconds, as the page shows them."""

from __future__ import annotations

import math

from loadtest.results.live_rates import LiveRates
from loadtest.results.totals import RunTotals
from loadtest.settings.run_options import Slo
from tests.rig.loadtest_objects import record


def test_uncounted_answer_makes_token_rates_unknown() -> None:
    rates, totals = LiveRates(), RunTotals(Slo())
    totals.add(record())
    rates.add(totals)
    assert rates.per_second()["output_tokens"] > 0
    totals.add(record(uncounted=True, output_tokens=0))
    rates.add(totals)
    known = rates.per_second()
    assert math.isnan(known["output_tokens"])
    assert math.isnan(known["prompt_tokens"])
    assert known["requests"] > 0
