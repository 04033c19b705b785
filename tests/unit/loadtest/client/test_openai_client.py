"""The official client as the judge of what a stream says: 200 made-up streams, read by it and by us."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast
from unittest.mock import patch

import httpx2
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from loadtest.client import sse
from loadtest.client.http import read_response
from loadtest.client.outcome import judge
from loadtest.client.stream import read_stream
from loadtest.workload import RequestSpec
from tests.rig.captured_answer import capture, delta, event, response, usage

STREAMS = 200
_UTF_8 = "utf-8", "surrogatepass"
_CLIENT = openai.OpenAI(api_key="none", base_url="http://localhost", http_client=httpx2.Client(trust_env=False))


@dataclass
class Reading:
    """What a reader says of a stream: `tokens` is the last count, `text` has refusals and tool calls too."""

    outcome: str
    text: str = ""
    tokens: int = 0


@dataclass
class Sent:
    """A stream, and what is in it that the two readers may take differently."""

    endpoint: str
    pieces: list[bytes]
    has: set[str] = field(default_factory=set)


# What is in a stream, and why the client's reading of it is not ours.
DIFFERENCES = {
    "an event without data": "gateways send it as a keep-alive; the client tries to read it as JSON, others skip it",
    "a byte order mark": "by the HTML standard it is no part of the stream; the client loses the first event with it",
    "no [DONE] and no token counts": "the client takes any end for a good one, also that of a stream that was cut off",
    "an error without the field error": "vLLM before 0.9 sent object: error; the client takes it for an empty chunk",
    "a choice that is null": "it says nothing; a program that reads the client's choices fails at it",
}
# Reasons that say themselves that the answer is not good; the client hands them on.
_ENDS = {"abort": "error", "content_filter": "filtered"}


class _Pieces(httpx2.SyncByteStream):
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Any:
        return iter(self._pieces)


def _delta_text(given: Any) -> str:
    content = given.content or ""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part["type"] == "text")
    calls = [call.function for call in given.tool_calls or []]
    return content + (given.refusal or "") + "".join((call.name or "") + (call.arguments or "") for call in calls)


def read_with_the_client(sent: Sent) -> Reading:
    """Read a stream as a program of a user does."""
    request = httpx2.Request("POST", "http://localhost/v1/chat/completions")
    answer = httpx2.Response(200, request=request, stream=_Pieces(sent.pieces))
    kind: Any = ChatCompletionChunk if sent.endpoint == "chat" else Completion
    text, tokens, reasons, output = "", None, [], False
    try:
        for chunk in openai.Stream(cast_to=kind, response=answer, client=_CLIENT):
            found = cast("Any", chunk)
            if found.usage is not None and found.usage.completion_tokens is not None:
                tokens = found.usage.completion_tokens
            for choice in found.choices or []:
                reasons += [choice.finish_reason] if choice.finish_reason else []
                if sent.endpoint == "completions":
                    text += choice.text or ""
                    continue
                if choice.delta is not None:
                    text += _delta_text(choice.delta)
                    output |= bool((choice.delta.model_extra or {}).get("reasoning_content") or choice.delta.content)
    except (openai.APIError, ValueError, AttributeError, TypeError):
        return Reading("error", text, tokens or 0)
    ends = [_ENDS[reason] for reason in reasons if reason in _ENDS]
    if not reasons:
        outcome = "truncated"
    elif ends:
        outcome = ends[0]
    elif not (text or output):
        outcome = "empty"
    else:
        outcome = "error" if tokens == 0 else "ok"
    return Reading(outcome, text, tokens or 0)


def read_with_ours(sent: Sent) -> Reading:
    """Read the same bytes with the load test's client."""
    made = capture(
        response(
            [(10.0 * number, piece) for number, piece in enumerate(sent.pieces, 1)], "Content-Type: text/event-stream"
        )
    )
    record = judge(RequestSpec(0, "chat", b"{}", None, 16), made, stream=True)
    answer = read_response(made, lambda: None)
    scanned = read_stream(answer, lambda: None)
    with patch.object(sse, "scan_events", None):  # which keeps the size of a plain text only
        text = "".join(read_stream(answer, lambda: None).answer)
    assert scanned.plain_bytes + len("".join(scanned.answer).encode(*_UTF_8)) == len(text.encode(*_UTF_8))
    return Reading(record.outcome.value, text, record.output_tokens)


WORDS = st.sampled_from([" a", "b", "\u00e9", "\u4e16", "\U0001f600", "\n\ndata: x", "[DONE]", "\r", '"', "\u2028"])
HALVES = [json.dumps(delta(content="HALF")).replace("HALF", f"\\u{code}") for code in ("d83d", "de00")]
NO_COUNTS = {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}
NAN = {"choices": [{"index": 0, "delta": {"content": "n"}, "text": "n", "logprobs": {"values": [float("nan")]}}]}
THOUGHT = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "t"}]

CHAT = st.one_of(
    WORDS.map(lambda text: [delta(content=text)]),
    st.just([delta(content="")]),
    st.just([delta(content=None)]),
    st.just([delta(role="assistant")]),
    st.just(HALVES),
    st.sampled_from(HALVES).map(lambda half: [half]),
    st.just([delta(content=THOUGHT)]),
    st.just([delta(reasoning_content="hm", content=None)]),
    st.just([delta(refusal="no")]),
    st.just([delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}])]),
    st.just([delta(index=1, content="second")]),
)
LEGACY = st.one_of(
    WORDS.map(lambda text: [{"choices": [{"index": 0, "text": text, "finish_reason": None}]}]),
    st.just([{"choices": [{"index": 0, "text": ""}]}]),
)
QUIET = st.sampled_from(
    [
        [b": ping\n\n"],
        [b"event: message\n" + event(delta())],
        [b"unknown: x\n" + event({"choices": []})],
        [{"choices": None}],
        [{"choices": [], "usage": None}],
        [{"usage": {}}],
        [{"usage": NO_COUNTS, "choices": []}],
        [usage(2)],
        [NAN],
    ]
)
# What stands between, and its name in DIFFERENCES, "" for what both must take alike.
ODD = st.sampled_from(
    [
        ("", {"error": {"message": "no GPU", "code": 500}}),
        ("", {"error": "no GPU", "choices": []}),
        ("", {"error": {}, "choices": []}),
        ("", "7"),
        ("", "{"),
        ("", {"choices": "none"}),
        ("", b'data: {"choices": [{"index": 0, "delta": {"content": "\xff"}}]}\n\n'),
        ("an event without data", b"data:\n\n"),
        ("an event without data", b"data: \n\n"),
        ("an event without data", b"retry: 3000\n\n"),
        ("an event without data", b"id: 1\n" + event(delta()) + b"\n\n"),
        ("an error without the field error", {"object": "error", "message": "no GPU", "code": 500}),
        ("a choice that is null", {"choices": [None]}),
    ]
)


@st.composite
def streams(draw: st.DrawFn) -> Sent:
    """A stream: output in many forms, things that say nothing, now and then an odd one, and one of many ends."""
    endpoint = draw(st.sampled_from(["chat", "chat", "completions"]))
    sent = Sent(endpoint, [])
    groups = draw(st.lists(st.one_of(CHAT if endpoint == "chat" else LEGACY, QUIET), max_size=8))
    events: list[object] = [each for group in groups for each in group]
    if draw(st.integers(0, 3)) == 0:
        name, odd = draw(ODD)
        events.insert(draw(st.integers(0, len(events))), odd)
        sent.has.add(name)
    reason = draw(st.sampled_from(["stop", "stop", "stop", "length", "content_filter", "abort", None]))
    if reason is not None:
        events.append(delta(reason) if endpoint == "chat" else {"choices": [{"text": "", "finish_reason": reason}]})
    counts = draw(st.sampled_from([9, 9, 9, 0, None]))
    events += [] if counts is None else [usage(counts, reasoning_tokens=draw(st.sampled_from([None, 5])))]
    end = draw(
        st.sampled_from([b"data: [DONE]\n\n"] * 4 + [b"data: [DONE]", b"data:[DONE]\n", b"data: [DONE] \n\n", b""])
    )
    if not end and counts in {None, 0}:
        sent.has.add("no [DONE] and no token counts")
    newline = draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"]))
    body = b"".join([*map(event, events), end]).replace(b"\n", newline)
    if draw(st.integers(0, 9)) == 0:
        sent.has.add("a byte order mark")
        body = b"\xef\xbb\xbf" + body
    size = draw(st.sampled_from([7, 50, 10_000]))
    sent.pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return sent


def test_made_up_streams_are_read_as_the_client_does() -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=STREAMS, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(streams())
    def compare(sent: Sent) -> None:
        ours, theirs = read_with_ours(sent), read_with_the_client(sent)
        known = sent.has & DIFFERENCES.keys()
        seen.update(known or {ours.outcome})
        if not known:
            assert (ours.outcome, len(ours.text), ours.tokens) == (theirs.outcome, len(theirs.text), theirs.tokens)

    compare()
    assert min(seen[outcome] for outcome in ("ok", "error", "empty", "truncated", "filtered")) > 5, seen


ANSWER = [delta(content=" a"), delta("stop"), usage(1), "[DONE]"]
# An example of each difference: events, the client's outcome, ours.
EXAMPLES = {
    "an event without data": ([b"data:\n\n", *ANSWER], "error", "ok"),
    "a byte order mark": ([b"\xef\xbb\xbf" + event(delta(content="a")), *ANSWER[1:]], "empty", "ok"),
    "no [DONE] and no token counts": ([delta(content="a"), delta("content_filter")], "filtered", "truncated"),
    "an error without the field error": ([{"object": "error", "message": "no GPU"}, *ANSWER], "ok", "error"),
    "a choice that is null": ([{"choices": [None]}, *ANSWER], "error", "ok"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_each_difference_is_one(name: str) -> None:
    events, theirs, ours = EXAMPLES[name]
    sent = Sent("chat", [event(each) for each in events])
    assert (read_with_the_client(sent).outcome, read_with_ours(sent).outcome) == (theirs, ours)
