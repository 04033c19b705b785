"""Pauses of closed-loop users: by themselves, and of a sender whose clock is the sum of its pauses."""

from __future__ import annotations

from locust.env import Environment

import logging
from typing import TYPE_CHECKING

import gevent
import pytest

from loadtest.client.request_record import Outcome
from loadtest.results.totals import RunTotals
from loadtest.sending import request_sender
from loadtest.sending.closed_loop_user import LONGEST_RETRY_AFTER_S, Backoff
from loadtest.sending.locust_user import LanguageModelUser
from loadtest.sending.request_sender import RequestSender
from loadtest.workload import Workload
from tests.rig.fixed_answers import Answer, serving
from tests.rig.loadtest_objects import options, record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtest.client.request_record import RequestRecord
    from loadtest.results.totals import Totals

CHAT = "/v1/chat/completions"
GOOD = (
    b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1}}'
)
EMPTY = (
    b'{"choices":[{"message":{"content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":0}}'
)
DATES = {"Date": "Mon, 30 Nov 2026 12:00:00 GMT", "Retry-After": "Mon, 30 Nov 2026 12:00:02 GMT"}


def failure(duration: float = 0.01, retry_after: float | None = None) -> RequestRecord:
    return record(Outcome.ERROR, duration=duration, retry_after=retry_after)


def pauses(backoff: Backoff, *records: RequestRecord) -> list[float]:
    return [0.0 if (pause := backoff.after(each)) is None else pause.seconds for each in records]


def test_pauses_double_up_to_a_bound() -> None:
    found = pauses(Backoff("1"), *[failure()] * 12)
    for seconds, longest in zip(found, [0.5, 1, 2, 4, *[8] * 8], strict=True):
        assert 0.75 * longest <= seconds <= longest
    assert len(set(found)) == 12  # users do not come back in step


def test_same_seed_repeats_the_pauses() -> None:
    first, second, other = (pauses(Backoff(seed), *[failure()] * 3) for seed in ("7", "7", "8"))
    assert first == second != other


def test_success_starts_the_pauses_anew() -> None:
    backoff = Backoff("1")
    assert pauses(backoff, *[failure()] * 5)[-1] > 4
    assert pauses(backoff, record(), failure())[1] <= 0.5


def test_slow_failure_needs_no_pause() -> None:
    assert pauses(Backoff("1"), failure(duration=30.0), record(Outcome.TIMEOUT, duration=300.0)) == [0, 0]


def test_server_decides_the_pause() -> None:
    assert pauses(Backoff("1"), failure(retry_after=3.0), failure(duration=30.0, retry_after=20.0)) == [3, 20]


def test_wait_of_a_day_is_bounded() -> None:
    assert pauses(Backoff("1"), failure(retry_after=86400.0)) == [LONGEST_RETRY_AFTER_S]


class Rig:
    """A sender of unstreamed chats, and the records of what it sent."""

    def __init__(self, url: str) -> None:
        asked = options("--endpoint", "chat", "--no-stream", "--api-key", "key", host=url)
        self.records: list[RequestRecord] = []
        workload = Workload.load(asked.workload)
        self.sender = RequestSender(asked, workload, self.records.append, first_measured=0, keep_rows=False)

    def totals(self) -> Totals:
        assert self.sender.drain()
        return RunTotals.from_wire(options().slo, self.sender.take_report()["measured"]).combined()


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(request_sender, "_sleep", found.append)
    return found


@pytest.fixture
def shedding() -> Iterator[Rig]:
    """A sender to a server that asks to come back in a day."""
    with serving({CHAT: Answer(b"busy", 429, {"Retry-After": "86400"})}) as server:
        rig = Rig(server.url)
        yield rig
        rig.sender.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(b'{"error":{"message":"slow down"}}', 429, {"Retry-After": "1"}), [1.0] * 6),
        (Answer(b"busy", 503, DATES), [2.0] * 6),
        (Answer(b"busy", 503), [0.5, 1, 2, 4, 8, 8]),
        (Answer(b'{"error":{"message":"no such parameter"}}', 400), [0.5, 1, 2, 4, 8, 8]),
        (Answer(b"", 429, {"Retry-After": "0"}), [0.5, 1, 2, 4, 8, 8]),
        (None, [0.5, 1, 2, 4, 8, 8]),
    ],
    ids=["429 with seconds", "503 with a date", "bare 503", "400", "wait of zero", "refused connection"],
)
def test_each_failure_is_followed_by_a_pause(answer: Answer | None, expected: list[float], paused: list[float]) -> None:
    with serving({CHAT: answer} if answer else {}) as server:
        rig = Rig(server.url if answer else "http://127.0.0.1:1")
        rig.sender.set_numbers(iter(range(6)), "1")
        rig.sender.run_users(1, 0.0)
        rig.sender._greenlets.join()
        totals = rig.totals()
        rig.sender.close()
    assert len(rig.records) == 6
    assert all(0.75 * most <= seconds <= most for seconds, most in zip(paused, expected, strict=True))
    asked = len(set(expected)) == 1
    assert (totals.pauses, totals.retry_after_pauses) == (6, 6 if asked else 0)
    assert not asked or paused == expected


@pytest.mark.parametrize("body", [b'{"error":{"message":"engine is dead"}}', EMPTY], ids=["error", "no text"])
def test_failure_inside_a_200_pauses(body: bytes, paused: list[float]) -> None:
    with serving({CHAT: Answer(body)}) as server:
        rig = Rig(server.url)
        rig.sender.set_numbers(iter(range(6)), "1")
        rig.sender.run_users(1, 0.0)
        rig.sender._greenlets.join()
        assert rig.sender.drain()
        rig.sender.close()
    assert len(paused) >= 5  # one more request may go out before the first record is read


def test_good_answers_cost_no_pause(paused: list[float]) -> None:
    with serving({CHAT: Answer(GOOD)}) as server:
        rig = Rig(server.url)
        rig.sender.set_numbers(iter(range(6)), "1")
        rig.sender.run_users(2, 0.0)
        rig.sender._greenlets.join()
        assert rig.sender.drain()
        rig.sender.close()
    assert [each.outcome for each in rig.records] == ["ok"] * 6
    assert not paused


def test_open_loop_keeps_its_schedule(shedding: Rig, paused: list[float]) -> None:
    shedding.sender.run_schedule(iter([(number, number / 1000) for number in range(20)]), 0.0)
    assert shedding.sender.ended.wait(10)
    totals = shedding.totals()
    assert totals.outcomes == {"rejected": 20}
    assert (totals.pauses, paused) == (0, [])


def test_run_ends_before_the_last_pause(shedding: Rig) -> None:
    shedding.sender.set_numbers(iter(range(2)), "1")
    shedding.sender.run_users(2, 0.0)
    assert shedding.sender.ended.wait(10)
    assert shedding.totals().outcomes == {"rejected": 2}


def test_stop_ends_a_pause_at_once(shedding: Rig) -> None:
    # Locust lets tasks end within its stop timeout, but not pauses.
    LanguageModelUser.sender, LanguageModelUser.idle_until = shedding.sender, None
    LanguageModelUser.run_known.set()
    shedding.sender.users_may_send.set()
    shedding.sender.set_numbers(iter(range(100)), "1")
    environment = Environment(user_classes=[LanguageModelUser], stop_timeout=50)
    runner = environment.create_local_runner()
    try:
        runner.start(2, spawn_rate=100)
        with gevent.Timeout(10):
            while len(shedding.records) < 2 or shedding.sender._pauses < 2:
                gevent.sleep(0.01)
            runner.stop()
    finally:
        runner.quit()
        LanguageModelUser.sender = None
    totals = shedding.totals()
    assert (totals.outcomes.total(), totals.pauses) == (2, 2)
    assert 0 < totals.paused_s < 20  # what was waited, not what was asked for


def test_pauses_are_said_now_and_then(shedding: Rig, paused: list[float], caplog: pytest.LogCaptureFixture) -> None:
    shedding.sender.set_numbers(iter(range(30)), "1")
    with caplog.at_level(logging.WARNING, logger="loadtest"):
        shedding.sender.run_users(3, 0.0)
        shedding.sender._greenlets.join()
    assert len(paused) == 30
    assert [each.getMessage() for each in caplog.records] == [
        "Users pause after failures; pause 1, of 60.0 s as Retry-After asks, comes after rejected: HTTP 429: busy"
    ]
