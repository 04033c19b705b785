from __future__ import annotations

import pytest

from loadtest.capacity.answer import SearchAnswer
from loadtest.capacity.finding import select_stages
from tests.rig.capacity_objects import record, request


def answer(mid: float) -> SearchAnswer:
    return SearchAnswer("edge", "interval", mid * 0.98, mid, mid * 1.02, 0.95, ())


def test_littles_law_uses_nearest_stages() -> None:
    slow = tuple(request(place, e2e_s=9.0) for place in range(100))
    stages = [record(10.0), record(10.2), record(40.0, slow)]
    assert select_stages(answer(10.0), stages).in_system == pytest.approx(10.0 * 0.5)


def test_littles_law_skips_void_stages() -> None:
    slow = tuple(request(place, e2e_s=9.0) for place in range(100))
    stages = [record(10.0, slow, void=("restart",)), record(11.0)]
    assert select_stages(answer(10.0), stages).in_system == pytest.approx(5.0)


def test_saturated_stages_are_near_the_capacity() -> None:
    stages = [record(2.0), record(9.0), record(10.5, missed=7), record(14.0, missed=60)]
    found = select_stages(answer(10.0), stages)
    assert found.lightest is stages[0]
    assert found.saturated == stages[1:3]


def test_saturated_stages_include_a_missed_one() -> None:
    stages = [record(2.0), record(10.0), record(40.0, missed=90), record(14.0, missed=60)]
    assert select_stages(answer(10.0), stages).saturated == [stages[1], stages[3]]


def test_stages_that_do_not_count_are_left_out() -> None:
    void = record(1.0, void=("restart",), client_limited=True)
    found = select_stages(answer(10.0), [void, record(3.0), record(4.0, ())])
    assert [stage.result.plan.rate for stage in found.counting] == [3.0]
    assert found.client_limited is void
