"""The engine's middleware: refusals while stopping, Retry-After, counts of open requests."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINE = Path(__file__).parents[3] / "docker" / "vllm"

import headroom_gate as gate  # noqa: E402  # its folder is on the path only inside the container

Scope = dict[str, Any]


def scope(method: str = "POST", path: str = "/v1/chat/completions", agent: str = "curl") -> Scope:
    return {"type": "http", "method": method, "path": path, "headers": [(b"user-agent", agent.encode())]}


def gauges() -> tuple[float, float, float]:
    """Values of the gauges: in flight, unanswered, unscraped."""
    found = (gate.IN_FLIGHT, gate.UNANSWERED, gate.UNSCRAPED)
    return tuple(next(iter(gauge.collect())).samples[0].value for gauge in found)  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "STOPPING", tmp_path / "stopping")
    monkeypatch.setattr(gate, "WARMING_UP", tmp_path / "warming-up")
    for gauge in (gate.IN_FLIGHT, gate.UNANSWERED, gate.UNSCRAPED):
        gauge.set(0)


def ask(app: gate.App, asked: Scope, sent: list[Any] | None = None) -> list[Any]:
    """Messages to the client of `app` behind a gate, for a request with a body in two parts."""
    out: list[Any] = [] if sent is None else sent
    parts = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.request", "body": b"}"}]

    async def receive() -> Any:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        out.append(message)

    asyncio.run((app if isinstance(app, gate.Gate) else gate.Gate(app))(asked, receive, send))
    return out


def answering(status: int, watch: Callable[[str], None] = lambda _: None) -> gate.App:
    async def app(_scope: Any, receive: gate.Receive, send: gate.Send) -> None:
        watch("begun")
        while (await receive()).get("more_body"):
            watch("half received")
        watch("received")
        await send({"type": "http.response.start", "status": status, "headers": [(b"a", b"b")]})
        watch("started")
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        watch("first byte")
        await receive()
        watch("disconnect")
        await send({"type": "http.response.body", "body": b""})

    return app


def test_unanswered_until_the_first_byte() -> None:
    seen: dict[str, tuple[float, float, float]] = {}
    ask(answering(200, lambda moment: seen.update({moment: gauges()})), scope())
    assert seen == {
        "begun": (1, 0, 0),
        "half received": (1, 0, 0),
        "received": (1, 1, 0),
        "started": (1, 1, 0),
        "first byte": (1, 0, 0),
        "disconnect": (1, 0, 0),
    }
    assert gauges() == (0, 0, 1)


def test_failed_handler_is_uncounted() -> None:
    async def fails(_scope: Any, receive: gate.Receive, _send: gate.Send) -> None:
        await receive()
        await receive()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        ask(fails, scope())
    assert gauges() == (0, 0, 1)


def test_full_queue_sends_retry_after() -> None:
    start = ask(answering(503), scope())[0]
    assert (b"retry-after", b"5") in start["headers"]
    assert (b"a", b"b") in start["headers"]
    assert all(name != b"retry-after" for name, _ in ask(answering(200), scope())[0]["headers"])


EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]


def streaming(*events: bytes) -> gate.App:
    async def app(_scope: Any, receive: gate.Receive, send: gate.Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def test_stream_passes_unchanged() -> None:
    first, last = b'data: {"choices": []}\n\n', b"data: [DONE]\n\n"
    start, *bodies = ask(streaming(first, last), scope())
    assert start == {"type": "http.response.start", "status": 200, "headers": EVENTS}
    assert [body["body"] for body in bodies] == [first, last, b""]


def test_refusal_in_a_stream_becomes_503() -> None:
    refusal = b'data: {"error": {"message": "The engine is currently busy", "param": null, "code": 503}}\n\n'
    start, body = ask(streaming(refusal, b"data: [DONE]\n\n"), scope())
    assert start["status"] == 503
    assert (b"retry-after", b"5") in start["headers"]
    assert b"currently busy" in body["body"]
    assert not body.get("more_body")
    assert gauges() == (0, 0, 1)


@pytest.mark.parametrize("status", [400, 500])
def test_early_error_keeps_its_status(status: int) -> None:
    start, _ = ask(streaming(b'data: {"error": {"message": "no", "code": %d}}\n\n' % status), scope())
    assert start["status"] == status
    assert all(name != b"retry-after" for name, _ in start["headers"])


def test_late_error_stays_in_the_stream() -> None:
    token, error = b'data: {"choices": []}\n\n', b'data: {"error": {"message": "no", "code": 500}}\n\n'
    start, *bodies = ask(streaming(token, error), scope())
    assert start["status"] == 200
    assert [body["body"] for body in bodies] == [token, error, b""]


@pytest.mark.parametrize("body", [b'data: {"error": 7}\n\n', b'data: {"error"', b'data: {"error": {"code": "x"}}\n'])
def test_error_like_text_passes_unchanged(body: bytes) -> None:
    start, first, _ = ask(streaming(body), scope())
    assert start["status"] == 200
    assert first["body"] == body


def test_stopping_refuses_new_requests() -> None:
    gate.STOPPING.touch()

    async def never(*_: Any) -> None:
        raise AssertionError

    start, body = ask(never, scope())
    assert start["status"] == 503
    assert {(b"retry-after", b"30"), (b"connection", b"close")} <= set(start["headers"])
    assert b"stopping" in body["body"]
    assert gauges() == (0, 0, 0)
    assert ask(answering(200), scope("GET", "/metrics"))[0]["status"] == 200


def test_only_prometheus_counts_as_scrape() -> None:
    door = gate.Gate(answering(200))
    ask(door, scope())
    ask(door, scope("GET", "/metrics", "headroom"))
    ask(door, scope("GET", "/health", "Prometheus/3.5.3"))
    assert gauges()[2] == 1
    ask(door, scope("GET", "/metrics", "Prometheus/3.5.3"))
    assert gauges()[2] == 0
    ask(door, scope())
    assert gauges()[2] == 1


def test_warm_up_is_no_users_traffic() -> None:
    door = gate.Gate(answering(200))
    gate.WARMING_UP.touch()
    assert ask(door, scope())[0]["status"] == 200
    assert ask(door, scope("GET", "/metrics", "Prometheus/3.13.4"))[0]["status"] == 503
    # The watchdog reads them all the same.
    assert ask(door, scope("GET", "/metrics", "headroom"))[0]["status"] == 200
    gate.WARMING_UP.unlink()
    assert ask(door, scope("GET", "/metrics", "Prometheus/3.13.4"))[0]["status"] == 200


def test_end_during_scrape_stays_unscraped() -> None:
    scrape = scope("GET", "/metrics", "Prometheus/3.5.3")

    async def page(asked: Any, _receive: Any, send: gate.Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        if asked is scrape:  # the page is rendered and not yet sent
            await door(scope(), end, nowhere)
        await send({"type": "http.response.body", "body": b""})

    async def end() -> Any:
        return {"type": "http.request", "body": b""}

    async def nowhere(_message: Any) -> None:
        return None

    door = gate.Gate(page)
    ask(door, scope())
    ask(door, scrape)
    assert gauges()[2] == 1
    ask(door, scope("GET", "/metrics", "Prometheus/3.5.3"))
    assert gauges()[2] == 0


def test_gate_and_supervisor_share_path() -> None:
    import state_files  # noqa: PLC0415  # beside the others: the gate itself may import nothing of the folder above

    text = (ENGINE / "gate" / "headroom_gate.py").read_text()
    assert f'Path("{state_files.STOPPING}")' in text
    assert f'Path("{state_files.WARMING_UP}")' in text
