from __future__ import annotations

import json
from typing import Any

import pytest

from loadtest.client.connection import End
from tests.rig.captured_answer import delta, event, judge_body, judge_stream, text, usage

GOOD: list[object] = [delta(role="assistant", content=""), text(), text(), text(), text("stop"), usage(4), "[DONE]"]


# llama-cpp-python 0.3.36, asked for `include_usage`.
LLAMA_CPP_PYTHON = [delta(role="assistant"), delta(content="Hello"), delta(content="!"), delta("length"), "[DONE]"]


def with_first(*events: object) -> list[object]:
    return [*events, *GOOD]


def half(code: str) -> str:
    return json.dumps(delta(content="HALF")).replace("HALF", f"\\u{code}")


NO_COUNTS = {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}


@pytest.mark.parametrize(
    "events",
    [
        with_first(b"data:\n\n", b"data: \n\n", b"data:  \n\n", b"data\n\n"),
        with_first(b"retry: 3000\n\n", b": ping\n\n", b"event: x\nid: 7\n\n"),
        [*GOOD[:-1], b"data: [DONE] \n\n"],
        [*GOOD[:-1], b"data: [DONE]"],
        [*GOOD[:-1], b"data:[DONE]\n"],
        with_first({**delta(), "usage": NO_COUNTS}, {"usage": {}}, {"choices": None, "usage": None}, {}),
        [*GOOD[:-1], {**delta(), "usage": NO_COUNTS}, "[DONE]"],
        with_first({"choices": [None]}, {"choices": [{"delta": None, "finish_reason": None}]}),
        with_first({"choices": [{"index": 0, "delta": {}, "logprobs": {"content": [{"logprob": float("nan")}]}}]}),
        with_first({"choices": [{"delta": {}, "score": float("-inf")}]}),
        [
            *GOOD[:-2],
            {"usage": {"prompt_tokens": 8.0, "completion_tokens": "4", "total_tokens": -1}},
            usage(4),
            "[DONE]",
        ],
        [b"\xef\xbb\xbf" + event(GOOD[0]), *GOOD[1:]],
        [event(each).replace(b"\n", b"\r") for each in GOOD],
        [event(each).replace(b"\n", newline) for each, newline in zip(GOOD, [b"\r", b"\n", b"\r\n"] * 3, strict=False)],
        [b"".join(map(event, GOOD)).replace(b": ", b":")],
    ],
)
def test_a_dialect_is_read_as_its_answer(events: list[object]) -> None:
    record = judge_stream(*events)
    assert (record.outcome, record.detail) == ("ok", "")
    assert (record.prompt_tokens, record.output_tokens) == (8, 4)
    assert len(record.gaps) == 3


@pytest.mark.parametrize(
    "output",
    [
        [half("d83d"), half("de00")],
        [half("d83d"), text()],
        [half("de00"), text()],
        [delta(content=[{"type": "text", "text": " a"}]), delta(content=["a", {"type": "text", "text": "b"}])],
        [delta(refusal="I"), delta(refusal=" won't", content=None)],
        [delta(function_call={"name": "f", "arguments": "{"}), delta(function_call={"arguments": "}"})],
        [{"choices": [{"index": 0, "text": " a"}]}, {"choices": [{"text": " b", "index": 0, "logprobs": None}]}],
        [delta(content="", audio={"data": "AAAA"}), delta(audio={"transcript": "a"})],
    ],
)
def test_each_form_of_output_is_a_token(output: list[object]) -> None:
    record = judge_stream(delta(role="assistant"), *output, delta("stop"), usage(2), "[DONE]")
    assert (record.outcome, record.detail) == ("ok", "")
    assert record.ttft == pytest.approx(0.040)
    assert len(record.gaps) == 1


@pytest.mark.parametrize("content_type", ["", "text/plain; charset=utf-8", "application/json", "application/x-ndjson"])
def test_a_stream_of_another_content_type_is_read(content_type: str) -> None:
    assert judge_stream(*GOOD, content_type=content_type).outcome == "ok"
    assert judge_stream(b": ping\n\n", *GOOD, content_type=content_type).outcome == "ok"


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"<html>login</html>", "text/html", "content type text/html: <html>login"),
        (b"", "text/plain", "content type text/plain, empty body"),
        (b'{"error": {"message": "no GPU"}}', "text/event-stream", "error in the answer: no GPU"),
        (json.dumps(usage(1)).encode(), "text/event-stream", "one document: content type text/event-stream"),
        (b"\x1f\x8b\x08", "application/json\r\nContent-Encoding: gzip", "content encoding gzip"),
    ],
)
def test_what_is_no_stream_is_named(body: bytes, content_type: str, words: str) -> None:
    record = judge_body(body, f"Content-Type: {content_type}")
    assert record.outcome == "error"
    assert words in record.detail


@pytest.mark.parametrize(
    ("status", "head", "body", "detail"),
    [
        ("307 X", "Location: /v1/chat/completions/", b"", "HTTP 307: redirect to /v1/chat/completions/"),
        ("302 X", "location: https://sso.example/login", b"<html>", "HTTP 302: redirect to https://sso.example/login"),
        ("413 X", "Content-Type: text/plain", b"body above 1 MB", "HTTP 413: body above 1 MB"),
        ("502 X", "Content-Type: text/plain", b"", "HTTP 502: no text"),
        ("400 X", "Content-Type: text/plain", b"a\x1b[2Jb\r\nc", "HTTP 400: a\N{REPLACEMENT CHARACTER}[2Jb c"),
        ("400 X", "Content-Type: x", b'{"error":{"message":"\\ud83d"}}', "HTTP 400: \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_an_http_error_keeps_its_reason(status: str, head: str, body: bytes, detail: str) -> None:
    record = judge_body(body, head, status=status, end=End.CLOSED)
    assert (record.outcome, record.detail) == ("error", detail)


@pytest.mark.parametrize(
    ("events", "end", "outcome"),
    [
        (GOOD[:-1], End.COMPLETE, "ok"),
        (GOOD[:-1], End.CLOSED, "truncated"),
        (GOOD[:-1], End.TIMEOUT, "timeout"),
        (GOOD[:-2], End.COMPLETE, "truncated"),
        ([*GOOD[:-3], usage(3)], End.COMPLETE, "truncated"),
    ],
)
def test_a_stream_without_done_must_be_whole(events: list[object], end: End, outcome: str) -> None:
    assert judge_stream(*events, end=end).outcome == outcome


@pytest.mark.parametrize(
    ("events", "detail"),
    [
        (GOOD[:5], "the stream ended with finish_reason, but with neither [DONE] nor token counts"),
        (GOOD[:3], "the stream ended with no finish_reason"),
    ],
)
def test_a_truncated_stream_says_its_lack(events: list[object], detail: str) -> None:
    record = judge_stream(*events)
    assert (record.outcome, record.detail) == ("truncated", detail)


@pytest.mark.parametrize("end", [End.COMPLETE, End.CLOSED, End.TIMEOUT])
def test_done_without_finish_reason_is_truncated(end: End) -> None:
    # llama-cpp-python, when another request interrupts this one; it then closes the connection
    record = judge_stream(*GOOD[:3], "[DONE]", end=end)
    assert (record.outcome, record.detail) == (
        "truncated",
        "[DONE] came with no finish_reason: the server cut the answer off",
    )


def test_uncounted_stream_is_ok_without_tpot() -> None:
    record = judge_stream(*LLAMA_CPP_PYTHON)
    assert (record.outcome, record.uncounted, record.tpot) == ("ok", True, None)
    assert record.ttft is not None
    assert record.e2e is not None


def test_a_truncated_document_says_its_lack() -> None:
    record = judge_body(b'{"choices": [{"message": {"content": "a"}}]}', stream=False)
    assert (record.outcome, record.detail) == ("truncated", "the answer has no finish_reason")


def test_a_repeated_message_is_no_output() -> None:
    whole = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": " a a a"}}]}
    assert len(judge_stream(*GOOD[:4], whole, usage(3), "[DONE]").gaps) == 2


@pytest.mark.parametrize("end", [End.COMPLETE, End.CLOSED, End.TIMEOUT, End.CANCELLED])
def test_an_answer_is_over_at_done(end: End) -> None:
    record = judge_stream(*GOOD, 5000.0, b": ping\n\n", end=end)
    assert record.outcome == "ok"
    assert record.duration == pytest.approx(len(GOOD) * 0.020)


@pytest.mark.parametrize(
    "data",
    [{"choices": "none"}, {"choices": [{"delta": {"content": 5}}]}, {"choices": [7]}, "7", '{"choices": [NaN'],
)
def test_what_no_client_can_read_is_an_error(data: Any) -> None:
    record = judge_stream(text(), data, text("stop"), usage(2), "[DONE]")
    assert record.outcome == "error"
    assert record.detail.startswith("an event is not valid JSON")
