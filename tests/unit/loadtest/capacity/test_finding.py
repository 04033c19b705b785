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
