from __future__ import annotations

import pytest

from tests.rig.one_request import ask_once

pytestmark = pytest.mark.usefixtures("receive_loop")

# Faults with an end get as long as a busy machine needs.
TIMEOUT_S, PATIENCE_S = 0.6, 5.0
# Fault -> its outcome, and a part of the detail.
FAULTS = {
    "in-band-error": ("error", "EngineCore encountered an issue"),
    "truncated": ("truncated", "finish_reason"),
    "no-finish-reason": ("truncated", "finish_reason"),
    "aborted": ("error", "abort"),
    "cut": ("truncated", "closed"),
    "reset": ("truncated", "reset"),
    "stall": ("timeout", "no end within"),
    "slow-loris": ("timeout", "no end within"),
    "silent": ("timeout", "no end within"),
    "closes-at-once": ("truncated", "closed"),
    "invalid-json": ("error", "not valid JSON"),
    "wrong-types": ("error", "not valid JSON"),
    "garbled": ("error", "not a valid HTTP response"),
    "error-as-ok": ("error", "EngineCore encountered an issue"),
    "whole-for-stream": (
        "error",
        "a stream was asked for, the server sent one document: content type application/json",
    ),
    "html": ("error", "not valid JSON: content type text/html: <html>login</html>"),
    "http-400": ("error", "HTTP 400: maximum context length"),
    "http-404": ("error", "HTTP 404: The model `x` does not exist."),
    "http-429": ("rejected", "HTTP 429: too many requests"),
    "http-500": ("error", "HTTP 500: Internal Server Error"),
    "http-503": ("rejected", "HTTP 503: queue is full"),
}


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_outcome(engine: str, fault: str, endpoint: str) -> None:
    outcome, text = FAULTS[fault]
    record = ask_once(engine, fault, endpoint=endpoint, timeout_s=TIMEOUT_S if outcome == "timeout" else PATIENCE_S)
    assert record.outcome == outcome
    assert text in record.detail
    assert record.failed


@pytest.mark.parametrize(
    "fault", ["", "merged", "split", "carriage-returns", "reasoning", "closes-after", "one-burst", "no-end", "no-done"]
)
def test_unusual_framing_is_still_ok(engine: str, fault: str) -> None:
    record = ask_once(engine, fault, tokens=6)
    assert (record.outcome, record.detail) == ("ok", "")
    assert record.output_tokens == 6
    assert len(record.gaps) == 5
    assert record.ttft is not None
    assert record.e2e is not None
    assert record.ttft + sum(record.gaps) == pytest.approx(record.e2e)
    assert record.tpot is not None
    assert record.tpot == pytest.approx(sum(record.gaps) / 5)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("", "ok"),
        ("cut-json", "truncated"),
        ("error-as-ok", "error"),
        ("html", "error"),
        ("http-503", "rejected"),
        ("silent", "timeout"),
    ],
)
def test_outcome_without_streaming(engine: str, fault: str, outcome: str) -> None:
    record = ask_once(engine, fault, stream=False, timeout_s=TIMEOUT_S if outcome == "timeout" else PATIENCE_S)
    assert record.outcome == outcome
    if outcome == "ok":
        assert record.output_tokens == 6
        assert record.ttft is None
        assert record.e2e is not None


def test_role_chunk_is_not_a_token(engine: str) -> None:
    record = ask_once(engine, "reasoning", tokens=5)
    assert len(record.gaps) == 4


def test_refused_connection_has_its_outcome() -> None:
    record = ask_once("http://127.0.0.1:1")
    assert record.outcome == "connect"
    assert record.failed


def test_merged_deltas_are_counted(engine: str) -> None:
    # A busy machine may split a burst, or read two deltas at once.
    assert max(ask_once(engine, "one-burst", tokens=6).merged_deltas for _ in range(3)) == 5
    assert min(ask_once(engine, tokens=6).merged_deltas for _ in range(3)) == 0
