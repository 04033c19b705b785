from __future__ import annotations

import pytest

from loadtest.client.sse import read_events

STREAM = b'data: {"a": 1}\n\n: a comment\n\nevent: x\ndata:two\ndata: lines\n\ndata: [DONE]\n\n'
EVENTS = [b'{"a": 1}', b"two\nlines", b"[DONE]"]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", range(1, 24))
def test_events_do_not_depend_on_fragments(newline: bytes, size: int) -> None:
    stream = STREAM.replace(b"\n", newline)
    pieces = [(stream[at : at + size], at) for at in range(0, len(stream), size)]
    assert [data for data, _ in read_events([*pieces, (newline, -1)])] == EVENTS


def test_event_arrives_with_its_last_byte() -> None:
    pieces = [(b"data: one\n", 1), (b"\ndata: two\n\ndata: th", 2), (b"ree\n\n", 3)]
    assert list(read_events(pieces)) == [(b"one", 2), (b"two", 2), (b"three", 3)]


def test_cut_off_event_is_dropped() -> None:
    assert list(read_events([(b"data: one\n\ndata: two\n", 1)])) == [(b"one", 1)]
