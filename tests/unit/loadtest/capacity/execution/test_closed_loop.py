from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.capacity.answer import SearchSettings
from loadtest.capacity.execution.closed_loop import judge_users, make_record, next_users
from loadtest.capacity.stage_record import UsersRecord
from tests.rig.capacity_objects import request


def tried(users: int, met: bool | None) -> UsersRecord:
    return UsersRecord(users, 100, 96, 0.9, 0.99, met, 5.0, 100.0, (), 10.0)


@pytest.mark.parametrize("limit", [1, 3, 7, 20, 100])
@pytest.mark.parametrize("first", [1, 8, 30])
def test_users_converge_to_the_limit(first: int, limit: int) -> None:
    records: list[UsersRecord] = []
    while (users := next_users(first, records)) is not None:
        assert users >= 1
        assert users not in {seen.users for seen in records}
        records.append(tried(users, users <= limit))
    assert 1 <= len(records) <= 4
    met = [seen.users for seen in records if seen.met]
    missed = [seen.users for seen in records if not seen.met]
    assert not met or not missed or max(met) <= limit < min(missed)


def test_undecided_users_end_the_search() -> None:
    assert next_users(8, [tried(8, None)]) is None


def test_interval_with_objective_is_undecided() -> None:
    settings = SearchSettings(objective=0.95)
    assert judge_users(96, 100, settings)[0] is None
    assert judge_users(300, 300, settings)[0] is True
    assert judge_users(60, 100, settings)[0] is False


def test_final_share_decides() -> None:
    requests = [request(good=place >= 2) for place in range(100)]
    made = make_record(8, requests, SearchSettings(objective=0.95), rate=5.0, void=(), duration_s=10.0)
    assert (made.met, made.good, made.output_tokens_per_s) == (True, 98, 5.0 * 21)


def test_pausing_users_are_not_users() -> None:
    # Two of ten were turned away and paused: what they did send was good.
    requests = [request(good=place >= 2) for place in range(100)]
    settings = SearchSettings(objective=0.95)
    made = make_record(10, requests, settings, rate=5.0, void=(), duration_s=10.0, paused_share=0.2)
    assert (made.met, made.paused_share) == (False, 0.2)


def test_void_closed_loop_decides_nothing() -> None:
    void = replace(tried(10, False), void=("restart",))
    assert next_users(8, [tried(8, True), void]) == next_users(8, [tried(8, True)]) == 10
