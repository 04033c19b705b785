from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import pytest

from loadtest.capacity.execution.window import MeasuredWindow, due_times
from loadtest.client.request_record import Outcome
from loadtest.results.csv_rows import RowFile, to_row
from loadtest.sending.pacing import LoadSpec
from loadtest.settings.run_options import Pacing
from tests.rig.full_disk import full_disk
from tests.rig.loadtest_objects import record

if TYPE_CHECKING:
    from pathlib import Path

    from loadtest.workload import Workload

FIRST = 500
LOAD = LoadSpec(3, Pacing("poisson", 10.0, 1.0, 1.0, None, 2), 7, FIRST)


class Asked:
    """Workload that asks for 33 tokens."""

    output_tokens = 33

    def request(self, _number: int) -> Any:
        return self


def row(place: int, outcome: Outcome = Outcome.OK, *, good: bool = True, **fields: Any) -> Any:
    made = record(outcome, index=FIRST + place, schedule_delay=0.004, **fields)
    return to_row(made, measured=place >= 2, good=good)


@pytest.fixture
def window() -> MeasuredWindow:
    return MeasuredWindow(LOAD, cast("Workload", Asked()), None)


def test_window_is_a_prefix_in_due_order(window: MeasuredWindow) -> None:
    window.add("a", [row(3), row(1)])
    assert (len(window.warmup), len(window.measured)) == (0, 0)
    window.add("b", [row(0), row(2), row(5)])
    assert (len(window.warmup), len(window.measured)) == (2, 2)
    due = list(islice(due_times(LOAD), 4))
    assert [request.due_s for request in (*window.warmup, *window.measured)] == due
    assert window.last_number == FIRST + 5


def test_full_disk_loses_no_request(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "requests.csv")
    window = MeasuredWindow(LOAD, cast("Workload", Asked()), rows)
    with full_disk(after=(tmp_path / "requests.csv").stat().st_size):
        window.add("a", [row(0), row(1), row(2)])
    assert len(window.measured) == 1
    assert rows.problem


def test_cancelled_request_ends_window(window: MeasuredWindow) -> None:
    window.add("a", [row(0), row(1), row(2), row(4, Outcome.CANCELLED), row(5)])
    window.add("a", [row(3)])
    assert len(window.measured) == 2  # 2 and 3: requests after the cancelled one would be a biased sample


def test_latencies_start_at_due_time(window: MeasuredWindow) -> None:
    window.add("a", [row(0), row(1), row(2)])
    [request] = window.measured
    assert request.ttft_s == pytest.approx(0.104)
    assert request.e2e_s == pytest.approx(0.504)
    assert request.tpot_s == pytest.approx(0.02)
    assert window.delays == [pytest.approx(0.004)]


def test_failures_keep_their_words_and_no_times(window: MeasuredWindow) -> None:
    # An error inside a stream comes after tokens; their times are those of no answer.
    broken = {"detail": "error in the stream: engine is dead", "good": False}
    window.add("a", [row(place, Outcome.ERROR, **broken) for place in range(4)])
    for request in window.measured:
        assert (request.ttft_s, request.tpot_s, request.e2e_s) == (None, None, None)
        assert request.ended_s == pytest.approx(0.504)
        assert request.failed
    [failure] = window.failures.most_frequent()
    assert (failure.outcome, failure.text, failure.count) == ("error", "error in the stream: engine is dead", 2)


def test_failed_request_keeps_asked_tokens(window: MeasuredWindow) -> None:
    window.add("a", [row(0), row(1), row(2, Outcome.REJECTED, good=False, ttft=None, e2e=None)])
    [request] = window.measured
    assert (request.rejected, request.good, request.output_tokens, request.e2e_s) == (True, False, 33, None)
    assert request.prompt_tokens == 100


def test_uncounted_tokens_are_those_asked_for(window: MeasuredWindow) -> None:
    window.add("a", [row(place, uncounted=place == 3) for place in range(4)])
    counted, uncounted = window.measured
    assert (counted.uncounted, uncounted.uncounted) == (False, True)
    assert uncounted.output_tokens == 33
