from __future__ import annotations

from typing import Any

import pytest

from loadtest.results.totals import RunTotals
from loadtest.settings.run_options import Slo
from tests.rig.captured_answer import delta, event, judge_body, judge_stream, text, usage

TOKENS = 20
ANSWER = [text()] * (TOKENS - 1) + [text("stop")]


def thinking(number: int, words: str = "well then") -> list[dict[str, Any]]:
    return [delta(reasoning_content=words)] * number


@pytest.mark.parametrize(
    ("before", "counts", "milliseconds"),
    [
        ([], {"completion": 20}, 20.0),
        # Not sent: only the answer's tokens were seen.
        ([1000.0], {"completion": 420, "completion_tokens_details": {"reasoning_tokens": 400}}, 20.0),
        ([1000.0], {"completion": 420, "reasoning_tokens": 400}, 20.0),
        # xAI: completion_tokens leaves the reasoning out.
        (
            [1000.0],
            {"completion": 20, "total_tokens": 428, "completion_tokens_details": {"reasoning_tokens": 400}},
            20.0,
        ),
        # Sent in full: all tokens count.
        (thinking(20), {"completion": 40, "completion_tokens_details": {"reasoning_tokens": 20}}, 20.0),
        # A summary of it: the answer alone.
        ([*thinking(2), 900.0], {"completion": 420, "completion_tokens_details": {"reasoning_tokens": 400}}, 20.0),
        # Sent as a part of the answer's text.
        ([text()] * 20, {"completion": 40, "completion_tokens_details": {"reasoning_tokens": 20}}, 20.0),
        # Nobody says how many tokens were hidden: more than the text can hold.
        ([1000.0], {"completion": 420}, None),
        (thinking(2), {"completion": 420}, None),
        ([1000.0], {"completion": 420, "completion_tokens_details": {"reasoning_tokens": 4}}, None),
        # A wrong count: less than the text can be.
        ([], {"completion": 1}, None),
        ([text()] * 40, {"completion": 3}, None),
    ],
)
def test_tpot_is_of_tokens_that_were_seen(
    before: list[object], counts: dict[str, Any], milliseconds: float | None
) -> None:
    record = judge_stream(delta(role="assistant", content=""), *before, *ANSWER, usage(**counts), "[DONE]")
    assert (record.outcome, record.detail) == ("ok", "")
    assert record.tpot == (None if milliseconds is None else pytest.approx(milliseconds / 1000))
    assert record.output_tokens == counts["completion"]


def test_speculative_chunks_of_many_tokens_count() -> None:
    chunks = [delta(content=" a b c d")] * 4 + [delta("stop", content=" a b c d")]
    assert judge_stream(*chunks, usage(20), "[DONE]").tpot == pytest.approx(4 * 0.020 / 19)


def test_several_choices_have_no_tpot() -> None:
    both = [delta(content=" a", index=index) for _ in range(10) for index in (0, 1)]
    record = judge_stream(*both, delta("stop"), delta("stop", index=1), usage(20), "[DONE]")
    assert (record.outcome, record.tpot) == ("ok", None)


def test_a_tool_call_has_its_text_and_tpot() -> None:
    def call(arguments: str, **more: str) -> dict[str, Any]:
        return delta(tool_calls=[{"index": 0, "function": {"arguments": arguments, **more}}])

    record = judge_stream(call("", name="weather"), *[call('"city')] * 5, delta("tool_calls"), usage(12), "[DONE]")
    assert record.outcome == "ok"
    assert record.tpot == pytest.approx(5 * 0.020 / 11)
    assert record.ttfat == record.ttft


@pytest.mark.parametrize("limit", [Slo(tpot=0.010), Slo(tpot=10.0)])
def test_unknown_tpot_never_meets_a_limit(limit: Slo) -> None:
    store = RunTotals(limit)
    store.add(judge_stream(1000.0, *ANSWER, usage(420), "[DONE]"))
    assert (store.totals("chat").good, store.totals("chat").tpot_unknown) == (0, 1)
    assert store.totals("chat").distributions["tpot"].count == 0


@pytest.mark.parametrize(
    "think",
    [
        delta(reasoning_content="hm"),
        delta(reasoning="hm"),
        delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]),
    ],
)
def test_first_answer_token_comes_after_thinking(think: dict[str, Any]) -> None:
    record = judge_stream(delta(role="assistant"), think, 200.0, think, text(), text("stop"), usage(4), "[DONE]")
    assert record.ttft == pytest.approx(0.040)
    assert record.ttfat == pytest.approx(0.280)


def test_thinking_alone_has_no_answer_token() -> None:
    record = judge_stream(*thinking(8), delta("length"), usage(16), "[DONE]")
    assert (record.outcome, record.ttfat) == ("ok", None)


NOTHING: list[object] = [delta(role="assistant", content="")]


@pytest.mark.parametrize(
    ("events", "outcome", "words"),
    [
        ([*NOTHING, delta("stop", content=""), usage(0)], "empty", "no text and no tool call: finish_reason stop"),
        ([*NOTHING, delta("stop"), usage(1)], "empty", "1 output tokens"),
        ([*NOTHING, delta("length"), usage(64, reasoning_tokens=64)], "empty", "64 of them reasoning"),
        ([*NOTHING, delta("stop", content=None, tool_calls=[])], "empty", "no token counts"),
        ([*NOTHING, delta("content_filter", content=""), usage(0)], "filtered", "finish_reason content_filter"),
        ([text(), delta("content_filter"), usage(2)], "filtered", "finish_reason content_filter"),
        ([text(), delta("insufficient_system_resource"), usage(2)], "error", "insufficient_system_resource"),
        ([text(), text("stop"), usage(0)], "error", "the server counted 0 output tokens"),
    ],
)
def test_an_answer_without_text_is_not_good(events: list[object], outcome: str, words: str) -> None:
    record = judge_stream(*events, "[DONE]")
    assert record.outcome == outcome
    assert words in record.detail
    assert record.failed
    store = RunTotals(Slo(e2e=1.0))
    store.add(record)
    assert store.totals("chat").good == 0


@pytest.mark.parametrize(
    ("choice", "tokens", "outcome"),
    [
        ({"message": {"content": "a b"}, "finish_reason": "stop"}, 2, "ok"),
        ({"message": {"content": "", "tool_calls": [{"function": {"name": "f"}}]}, "finish_reason": "stop"}, 2, "ok"),
        ({"message": {"content": None}, "finish_reason": "stop"}, 0, "empty"),
        ({"text": "", "finish_reason": "length"}, 5, "empty"),
        ({"text": "a", "finish_reason": "content_filter"}, 1, "filtered"),
    ],
)
def test_a_whole_answer_without_text_is_not_good(choice: dict[str, Any], tokens: int, outcome: str) -> None:
    body = event({**usage(tokens), "choices": [choice]}).removeprefix(b"data: ")
    assert judge_body(body, "Content-Type: application/json", stream=False).outcome == outcome
