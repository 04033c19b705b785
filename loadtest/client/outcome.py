"""Judge a capture: the outcome, times and tokens of one request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadtest.client import messages
from loadtest.client.connection import Capture, End
from loadtest.client.http import Response, read_response
from loadtest.client.request_record import NS, Outcome, RequestRecord
from loadtest.client.retry_after import read_retry_after
from loadtest.client.stream import is_stream, read_stream, time_per_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from loadtest.workload import RequestSpec

_DETAIL_CHARS = 200
_BROKEN = {
    End.TIMEOUT: Outcome.TIMEOUT,
    End.CANCELLED: Outcome.CANCELLED,
    End.CONNECT: Outcome.CONNECT,
    End.GARBLED: Outcome.ERROR,
}
_SHED = {429, 503}
# vLLM's and SGLang's, Zhipu's, DeepSeek's words for a request that the server gave up.
_FAILED = {"abort", "error", "network_error", "insufficient_system_resource"}
# OpenAI's, Zhipu's, Gemini's words for an answer that a filter has cut.
_FILTERED = {"content_filter", "sensitive", "safety"}


def _noop() -> None:
    pass


def judge(
    spec: RequestSpec,
    capture: Capture,
    *,
    stream: bool,
    due_at: float | None = None,
    yield_to_loop: Callable[[], None] = _noop,
) -> RequestRecord:
    """Return the record of one exchange.

    `stream`: a stream was requested. `due_at`: Unix time at which an open loop had the request due, seconds.
    `yield_to_loop` is called every SLICE reads and events of a long response.
    """
    sent_ns = capture.sent_ns or capture.ended_ns
    record = RequestRecord(
        index=spec.index,
        endpoint=spec.endpoint,
        outcome=Outcome.ERROR,
        sent_at=sent_ns * NS,
        duration=(capture.ended_ns - sent_ns) * NS,
        expected_prompt_tokens=spec.prompt_tokens,
        schedule_delay=None if due_at is None else max(0.0, sent_ns * NS - due_at),
    )
    response = read_response(capture, yield_to_loop)
    record.status = response.status
    record.own_limit = capture.own_limit
    record.kernel_stamped = response.kernel_stamped
    record.lags = (response.lags_ns * NS).tolist()
    record.response_bytes = capture.size
    record.outcome, record.detail = _outcome(record, capture, response, stream=stream, yield_to_loop=yield_to_loop)
    if record.failed:
        record.retry_after = read_retry_after(response.headers, capture.ended_ns * NS)
    text = " ".join(record.detail.split())[:_DETAIL_CHARS]
    # The server's words go to files and terminals: no control characters, no half of a surrogate pair.
    record.detail = "".join([letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text])
    return record


def _outcome(
    record: RequestRecord, capture: Capture, response: Response, *, stream: bool, yield_to_loop: Callable[[], None]
) -> tuple[Outcome, str]:
    missing = "no answer came"
    if 200 <= response.status < 300:
        complete = capture.end is End.COMPLETE
        # The content takes precedence over how the connection ended: after [DONE], nothing is missing.
        if stream and is_stream(response):
            found, missing = _read_stream(record, capture.sent_ns, response, yield_to_loop, complete=complete)
        else:
            found, missing = _read_whole(record, capture.sent_ns, response, stream=stream, complete=complete)
        if found is not None:
            return found, missing
    elif response.status and capture.end not in _BROKEN:
        text = _http_error_text(response)
        return (Outcome.REJECTED if response.status in _SHED else Outcome.ERROR), f"HTTP {response.status}: {text}"
    if capture.end in _BROKEN:
        return _BROKEN[capture.end], capture.detail
    return Outcome.TRUNCATED, capture.detail or missing


def _read_stream(
    record: RequestRecord,
    sent_ns: int,
    response: Response,
    yield_to_loop: Callable[[], None],
    *,
    complete: bool,
) -> tuple[Outcome | None, str]:
    """Fill in `record` from the events; return the outcome and its detail, None and what is missing without an end.

    A server that never sends [DONE] has a terminal state in `finish_reason` and token counts, if the body is complete.
    """
    stream = read_stream(response, yield_to_loop)
    _set_times(record, sent_ns, stream.arrivals_ns)
    if stream.first_answer_ns is not None:
        record.ttfat = (stream.first_answer_ns - sent_ns) * NS
    _set_tokens(record, stream.usage)
    if stream.problem is not None:
        return Outcome.ERROR, stream.problem
    if stream.done_ns is not None and not stream.finish_reasons:
        return Outcome.TRUNCATED, "[DONE] came with no finish_reason: the server cut the answer off"
    over = stream.done_ns is not None or (complete and record.output_tokens > 0)
    if not over or not stream.finish_reasons:
        has = "finish_reason, but with neither [DONE] nor token counts" if stream.finish_reasons else "no finish_reason"
        return None, f"the stream ended with {has}"
    if stream.done_ns is not None:
        record.duration = (stream.done_ns - sent_ns) * NS
    if record.e2e is None:
        record.e2e = record.duration
    per_token = time_per_token(stream)
    record.tpot = None if per_token is None else per_token * NS
    record.uncounted = stream.usage is None or stream.usage.completion_tokens is None
    return _finished(stream.finish_reasons, stream.usage, has_output=bool(len(stream.arrivals_ns)), where="stream")


def _set_times(record: RequestRecord, sent_ns: int, arrivals: NDArray[np.int64]) -> None:
    if not len(arrivals):
        return
    record.ttft = (int(arrivals[0]) - sent_ns) * NS
    record.e2e = (int(arrivals[-1]) - sent_ns) * NS
    gaps = arrivals[1:] - arrivals[:-1]
    record.merged_deltas = len(gaps) - int(np.count_nonzero(gaps))
    record.gaps = (gaps * NS).tolist()


def _set_tokens(record: RequestRecord, usage: messages.Usage | None) -> None:
    if usage is None:
        return
    record.prompt_tokens = usage.prompt_tokens or 0
    record.output_tokens = usage.completion_tokens or 0
    record.reasoning_tokens = usage.reasoning
    if usage.prompt_tokens_details is not None:
        record.cached_tokens = usage.prompt_tokens_details.cached_tokens or 0


def _read_whole(
    record: RequestRecord, sent_ns: int, response: Response, *, stream: bool, complete: bool
) -> tuple[Outcome | None, str]:
    """Fill in `record` from one JSON document; return the outcome and its detail, None and what is missing without."""
    if not complete:
        return None, "the answer was cut off"
    body, kind = response.body, response.content_type or "none"
    try:
        answer = messages.decode(body)
    except messages.NOT_JSON:
        start = body[:80].decode("utf-8", "replace")
        encoding = response.headers.get("content-encoding")
        return Outcome.ERROR, (
            f"the answer is not valid JSON: content type {kind}"
            + (f", content encoding {encoding}" if encoding else f": {start}" if start.strip() else ", empty body")
        )
    text = messages.error_text(answer)
    if text is not None:
        return Outcome.ERROR, f"error in the answer: {text}"
    if stream:
        return Outcome.ERROR, f"a stream was asked for, the server sent one document: content type {kind}"
    record.e2e = (int(response.times[-1]) - sent_ns) * NS
    _set_tokens(record, answer.usage)
    choices = answer.choices or []
    reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
    if not reasons:
        return None, "the answer has no finish_reason"
    has_output = any(messages.read_output(choice.message, choice.text) for choice in choices)
    record.uncounted = answer.usage is None or answer.usage.completion_tokens is None
    return _finished(reasons, answer.usage, has_output=has_output, where="answer")


def _finished(reasons: list[str], usage: messages.Usage | None, *, has_output: bool, where: str) -> tuple[Outcome, str]:
    """Return the outcome of a response that has its terminal state."""
    for reason in reasons:
        if reason.lower() in _FAILED:
            return Outcome.ERROR, f"finish_reason {reason}"
        if reason.lower() in _FILTERED:
            return Outcome.FILTERED, f"finish_reason {reason}"
    tokens = None if usage is None else usage.completion_tokens
    if not has_output:
        counted = "no token counts" if tokens is None else f"{tokens} output tokens"
        hidden = f", {usage.reasoning} of them reasoning" if usage is not None and usage.reasoning else ""
        return Outcome.EMPTY, f"no text and no tool call: finish_reason {reasons[0]}, {counted}{hidden}"
    if tokens == 0:
        return Outcome.ERROR, f"the server counted 0 output tokens (usage) for the text in the {where}"
    return Outcome.OK, ""


def _http_error_text(response: Response) -> str:
    target = response.headers.get("location")
    if 300 <= response.status < 400 and target:
        return f"redirect to {target}"
    body = response.body
    try:
        text = messages.error_text(messages.decode(body))
    except messages.NOT_JSON:
        text = None
    return text or body.decode("utf-8", "replace") or "no text"
