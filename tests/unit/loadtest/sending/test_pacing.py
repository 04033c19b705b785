from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, cast

import pytest

from loadtest.sending.pacing import due_requests, request_numbers
from tests.rig.loadtest_objects import options

if TYPE_CHECKING:
    from loadtest.workload import Workload

NO_TRACE = cast("Workload", None)


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("arrival", ["constant", "poisson", "gamma"])
def test_shares_add_up_to_the_schedule(arrival: str, processes: int) -> None:
    pacing = options("--arrival", arrival, "--rate", "10", "--max-requests", "500", "--burstiness", "0.5").pacing
    whole = list(due_requests(pacing, NO_TRACE, 7, 0, 1))
    shares = [list(due_requests(pacing, NO_TRACE, 7, number, processes)) for number in range(processes)]
    assert sorted(itertools.chain(*shares)) == whole
    assert [number for number, _ in whole] == list(range(500))
    assert all(due <= later for (_, due), (_, later) in itertools.pairwise(whole))


@pytest.mark.parametrize("processes", [1, 3])
def test_closed_loop_sends_each_number_once(processes: int) -> None:
    pacing = options("--max-requests", "100").pacing
    shares = [list(request_numbers(pacing, number, processes)) for number in range(processes)]
    assert sorted(itertools.chain(*shares)) == list(range(100))


def test_late_process_gets_numbers_of_its_own() -> None:
    endless, bounded = options().pacing, options("--max-requests", "10").pacing
    late = set(itertools.islice(request_numbers(endless, 2, 2), 1000))
    assert late.isdisjoint(itertools.islice(request_numbers(endless, 0, 2), 100_000))
    assert late.isdisjoint(itertools.islice(request_numbers(endless, 3, 2), 1000))
    assert list(request_numbers(bounded, 2, 2)) == []
    open_loop = options("--arrival", "constant", "--rate", "1").pacing
    assert list(due_requests(open_loop, NO_TRACE, 1, 2, 2)) == []
