"""Answers that come before the request is sent whole, and answers whose body does not end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loadtest.client.connection import Capture, Connection, End
from loadtest.client.outcome import judge
from loadtest.client.target import build_request
from tests.rig.captured_answer import delta, event, text, usage
from tests.rig.fault_engine.chunks import HEAD_STREAM, LAST_CHUNK, framed
from tests.rig.one_request import ask, make_spec, target
from tests.rig.scripted_server import Part, scripted_server

if TYPE_CHECKING:
    from loadtest.client.request_record import RequestRecord

REFUSAL = b"HTTP/1.1 413 X\r\nconnection: close\r\ncontent-length: 15\r\n\r\nbody above 1 MB"
EVENTS = [event(each) for each in (delta(role="assistant"), text(), text("stop"), usage(2))]
STREAM = HEAD_STREAM + b"".join(map(framed, EVENTS))
DONE = event("[DONE]")
FOREVER = 20.0


def ask_with_long_body(url: str, timeout_s: float = 5.0) -> RequestRecord:
    where = target(url)
    spec = make_spec(tokens=2)
    connection, capture = Connection(where), Capture()
    body = spec.body.replace(b"question", b"q" * 8_000_000)
    connection.exchange(build_request(where.head("chat"), body), timeout_s, capture)
    connection.close()
    return judge(spec, capture, stream=True)


@pytest.mark.parametrize(
    ("script", "read_first"),
    [
        ([REFUSAL], 100),  # the close resets the connection: not all of the request was read
        ([REFUSAL, FOREVER], 100),  # neither reads on nor closes
        ([0.2, REFUSAL, FOREVER], 1_000_000),
        ([REFUSAL[:20], 0.1, REFUSAL[20:], FOREVER], 100),
    ],
)
def test_an_early_refusal_keeps_its_reason(script: list[Part], read_first: int) -> None:
    with scripted_server(script, read_first=read_first) as url:
        record = ask_with_long_body(url)
    assert (record.outcome, record.status, record.detail) == ("error", 413, "HTTP 413: body above 1 MB")
    assert record.duration < 4


def test_an_interim_answer_does_not_stop_a_request() -> None:
    continued = b"HTTP/1.1 100 Continue\r\n\r\n"
    with scripted_server([continued, 0.2, FOREVER], read_first=100) as url:
        assert ask_with_long_body(url, timeout_s=0.6).outcome == "timeout"  # nobody reads the rest: it waits to send it


def test_an_early_close_without_an_answer_is_named() -> None:
    with scripted_server([], read_first=100) as url:
        record = ask_with_long_body(url)
    assert record.outcome == "truncated"
    assert record.detail in {"Broken pipe", "Connection reset by peer", "the server closed the connection"}


def pieces(data: bytes, size: int) -> list[Part]:
    return [part for at in range(0, len(data), size) for part in (data[at : at + size], 0.002)]


@pytest.mark.parametrize(
    "script",
    [
        [STREAM, framed(DONE)],
        [STREAM + framed(DONE)],
        [STREAM, framed(DONE.replace(b"\n", b"\r\n"))],
        [STREAM, framed(b"data: [DONE]")],
        [STREAM, framed(b"data:[DONE] \n\n")],
        [STREAM, framed(b"data: [DONE]"), 0.02, framed(b"\n\n")],
        [STREAM, *pieces(framed(DONE), 5)],
        [STREAM, *pieces(framed(DONE), 1)],
        [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"".join(EVENTS), DONE],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n" + b"".join(EVENTS) + DONE],
        [STREAM, framed(DONE), *[part for _ in range(40) for part in (framed(b": ping\n\n"), 0.05)]],
    ],
)
def test_an_answer_ends_at_done_not_at_the_body(script: list[Part]) -> None:
    with scripted_server([*script, FOREVER]) as url:
        record = ask(Connection(target(url)), target(url), timeout_s=4.0)
    assert (record.outcome, record.detail, record.output_tokens) == ("ok", "", 2)
    assert record.duration < 3


def test_a_body_that_ends_soon_keeps_the_connection() -> None:
    where_script = [STREAM, framed(DONE), 0.03, LAST_CHUNK]
    with scripted_server(where_script, answers=3) as url:
        where = target(url)
        connection = Connection(where)
        assert [ask(connection, where).outcome for _ in range(3)] == ["ok"] * 3
        connection.close()
    assert connection.opened == 1


def test_done_inside_a_text_is_no_end() -> None:
    words = event(delta(content="\ndata: [DONE]"))
    script: list[Part] = [HEAD_STREAM, framed(words), 0.3, *[framed(each) for each in EVENTS], framed(DONE), LAST_CHUNK]
    with scripted_server(script) as url:
        capture = Capture()
        connection, spec = Connection(target(url)), make_spec()
        connection.exchange(build_request(target(url).head("chat"), spec.body), 3.0, capture)
        connection.close()
    record = judge(spec, capture, stream=True)
    assert capture.end is End.COMPLETE
    assert (record.outcome, len(record.gaps)) == ("ok", 2)
