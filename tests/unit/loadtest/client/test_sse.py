from __future__ import annotations

import json
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.client import messages, native_receiver
from loadtest.client.http import Response
from loadtest.client.sse import read_events, split_events
from tests.rig.fault_engine import chunks

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


def _response(pieces: list[bytes]) -> Response:
    ends = np.array(list(accumulate(map(len, pieces))), np.int64)
    return Response(200, {}, b"".join(pieces), ends, np.arange(len(pieces)) + 1000)


@pytest.mark.usefixtures("receive_loop")
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 7, 23, 100, 10_000])
@pytest.mark.parametrize("stream", [STREAM, chunks.role() + chunks.token("chat") * 5 + chunks.DONE, b""])
def test_whole_body_has_the_same_events(newline: bytes, size: int, stream: bytes) -> None:
    stream = stream.replace(b"\n", newline)
    response = _response([stream[at : at + size] for at in range(0, len(stream), size)])
    expected = list(read_events(response.fragments()))
    events = split_events(response)
    assert events.arrivals.tolist() == [at for _, at in expected]
    others = [(number, data) for number, (data, _) in enumerate(expected) if not events.plain[number]]
    assert events.others == others


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**20) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_TEXT = st.none() | st.text(max_size=5)


def _fields(**known: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    extra = st.dictionaries(st.sampled_from(["id", "role", "refusal", "x"]), _values, max_size=2)
    return st.builds(lambda some, more: more | some, st.fixed_dictionaries({}, optional=known), extra)


_CHOICE = _fields(
    index=st.integers(0, 10) | _values,
    delta=_fields(content=_TEXT, reasoning=_TEXT, tool_calls=_values) | st.none(),
    text=_TEXT,
    finish_reason=_TEXT,
    message=st.none() | _fields(content=_TEXT),
)
_EVENTS = _fields(choices=st.lists(_CHOICE, max_size=2) | _values, usage=_values, error=_values, object=_TEXT)


@pytest.mark.skipif(native_receiver.Receiver is None, reason="not built here: scripts/build-native")
@settings(max_examples=200, deadline=None)
@given(st.lists(_EVENTS, min_size=1, max_size=3), st.data())
def test_plain_events_are_deltas_of_text(events: list[dict[str, object]], data: st.DataObject) -> None:
    """An event that Python does not read is one delta of text, and nothing else that an outcome depends on."""
    stream = b""
    for event in events:
        written = json.dumps(event, ensure_ascii=data.draw(st.booleans()))
        text = bytearray(written.encode("utf-8", "surrogatepass"))
        if data.draw(st.integers(0, 3)) == 0:  # break it
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
        stream += b"data: " + bytes(text) + b"\n\n"
    response = _response([stream])
    expected = [event for event, _ in read_events(response.fragments())]
    found = split_events(response)
    assert len(found.plain) == len(expected)
    for number, written_event in enumerate(expected):
        if not found.plain[number]:
            continue
        answer = messages.decode(written_event)
        assert messages.error_text(answer) is None
        assert answer.usage is None
        assert answer.choices is not None
        (choice,) = answer.choices
        ((kind, output),) = messages.read_output(choice.delta, choice.text).items()
        assert (kind, len(output.encode())) == (messages.ANSWER, found.plain[number])
        assert choice.finish_reason is None
        assert not choice.index


@pytest.mark.skipif(native_receiver.Receiver is None, reason="not built here: scripts/build-native")
@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_tokens_of_a_stream_are_plain(endpoint: str) -> None:
    token = chunks.token(endpoint)
    texts = [" a", "b", '"', "\\", "\n", "\u00e9", "\u4e2d", "data: "]
    tokens = [token.replace(b'" token"', json.dumps(text).encode()) for text in texts]
    response = _response([*tokens, chunks.token(endpoint, finish="length"), chunks.usage_event(1, 9), chunks.DONE])
    assert split_events(response).plain.tolist() == [2, 1, 1, 1, 1, 2, 3, 6, 0, 0, 0]
