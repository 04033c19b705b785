from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gevent
import pytest

from loadtest.client import clock
from loadtest.sending import clock_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Channel:
    """Locust's channel between two runners; `delays` gives the delay of each message in seconds."""

    def __init__(self, delays: Callable[[], float]) -> None:
        self.delays = delays
        self.peer: Channel
        self.handlers: dict[str, Any] = {}

    def register_message(self, kind: str, handler: Any) -> None:
        self.handlers[kind] = handler

    def send_message(self, kind: str, data: Any, _node: str | None = None) -> None:
        if kind in self.peer.handlers:
            message = SimpleNamespace(data=data, node_id="worker")
            gevent.spawn_later(self.delays(), lambda: self.peer.handlers[kind](msg=message))


@pytest.fixture(autouse=True)
def own_clock() -> Iterator[None]:
    yield
    clock.set_offset(0)


def connect(to_master: Callable[[], float], to_worker: Callable[[], float]) -> tuple[Channel, Channel]:
    worker, master = Channel(to_master), Channel(to_worker)
    worker.peer, master.peer = master, worker
    return worker, master


def set_clock(worker: Channel) -> list[str]:
    messages: list[str] = []
    done = gevent.event.Event()
    clock_sync.MasterTime(worker).set_clock(
        lambda: (messages.append("ready"), done.set()), lambda problem: (messages.append(problem), done.set())
    )
    assert done.wait(timeout=10)
    return messages


@pytest.mark.parametrize("ahead_s", [-3600.0, 0.0, 86_400.0])
def test_worker_takes_the_masters_time(monkeypatch: pytest.MonkeyPatch, ahead_s: float) -> None:
    slow = iter([0.2] + [0.05, 0.002] * 3 + [0.05] * 100)
    worker, master = connect(lambda: next(slow), lambda: 0.002)
    own = clock_sync.time.time
    in_master = False

    def reply_with_master_time(msg: Any) -> None:
        nonlocal in_master
        in_master = True
        reply(msg=msg)
        in_master = False

    monkeypatch.setattr(clock_sync.time, "time", lambda: own() + (ahead_s if in_master else 0.0))
    clock_sync.answer_time_requests(master)
    reply = master.handlers["loadtest_time_request"]
    master.handlers["loadtest_time_request"] = reply_with_master_time
    assert set_clock(worker) == ["ready"]
    # By the fastest round trip, not the mean: 2 ms each way, so an error of 2 ms at most, and scheduling.
    assert clock.now_ns() * 1e-9 - own() == pytest.approx(ahead_s, abs=0.01)


def test_silent_master_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_sync, "_TIMEOUT_S", 0.02)
    worker, _ = connect(lambda: 0.0, lambda: 0.0)
    [problem] = set_clock(worker)
    assert "the master did not tell the time" in problem
    assert clock.now_ns() * 1e-9 == pytest.approx(clock_sync.time.time(), abs=1)


def test_kernel_stamps_follow_the_clock() -> None:
    stamp = clock._TIMESPEC.pack(1_700_000_000, 5)
    clock.set_offset(2.5)
    assert clock.kernel_stamp(stamp) == 1_700_000_002_500_000_005
