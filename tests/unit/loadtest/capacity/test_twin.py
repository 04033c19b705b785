"""The edge by an engine's twin: what its batches are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from made import record, request

from loadtest.capacity.answer import Limits
from loadtest.capacity.simulation.spec import EngineSpec
from loadtest.capacity.twin import _Matching

if TYPE_CHECKING:
    from loadtest.capacity.stage import StageResult

LIMITS = Limits(ttft_s=0.5)


def stage(e2e_s: float) -> StageResult:
    """100 requests in 10 s, each of which takes so long."""
    return record(requests=tuple(request(place / 10, e2e_s=e2e_s) for place in range(100))).result


def test_a_stage_whose_requests_all_outlast_it_makes_no_batch() -> None:
    matching = _Matching(EngineSpec(), LIMITS, [stage(0.5), stage(60.0)])
    matching.excess(0.0)
    batches = [count for _, count, _, _ in matching.batches(0.0)]
    assert sum(batches) == matching.requests
    assert min(batches) > 0


def test_requests_that_later_arrivals_could_touch_are_in_no_batch() -> None:
    matching = _Matching(EngineSpec(), LIMITS, [stage(2.0)])
    assert matching.requests == 80
