from __future__ import annotations

import pytest

from loadtest.capacity.bottleneck.queue_limit import queue_limit
from loadtest.capacity.stage_record import UsersRecord


def limit(loops: dict[int, bool], in_system: float | None = 5.0) -> int | None:
    """The limit after closed loops of so many users that met the SLO or missed it."""
    users = [UsersRecord(count, 100, 96, 0.9, 0.99, met, 5.0, 100.0, (), 10.0) for count, met in loops.items()]
    found = queue_limit(users, in_system)
    return None if found is None else int(found["max_num_queued_reqs"])


@pytest.mark.parametrize(
    ("loops", "expected"), [({8: True, 10: True, 12: False}, 10), ({}, 5), ({5: False}, 4), ({1: False}, 1)]
)
def test_limit_is_below_what_missed(loops: dict[int, bool], expected: int) -> None:
    assert limit(loops) == expected


def test_nothing_known_gives_no_limit() -> None:
    assert limit({12: False}, None) is None
