"""Judge a capture: the outcome, times and tokens of one request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loadtest.client import messages
from loadtest.client.connection import Capture, End
from loadtest.client.http import SLICE, Response, read_response
from loadtest.client.request_record import NS, Outcome, RequestRecord
from loadtest.client.sse import read_events

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtest.workload import RequestSpec

_DETAIL_CHARS = 200
_BROKEN = {
    End.TIMEOUT: Outcome.TIMEOUT,
    End.CANCELLED: Outcome.CANCELLED,
    End.CONNECT: Outcome.CONNECT,
    End.GARBLED: Outcome.ERROR,
}
_SHED = {429, 503}


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
    record.lags = [lag * NS for lag in response.lags_ns]
    record.response_bytes = sum(len(read[0]) for read in capture.reads)
    record.outcome, record.detail = _outcome(record, capture, response, stream=stream, yield_to_loop=yield_to_loop)
    record.detail = " ".join(record.detail.split())[:_DETAIL_CHARS]
    return record


def _outcome(
    record: RequestRecord, capture: Capture, response: Response, *, stream: bool, yield_to_loop: Callable[[], None]
) -> tuple[Outcome, str]:
    if 200 <= response.status < 300:
        if stream and response.content_type.startswith("text/event-stream"):
            found = _read_stream(record, capture.sent_ns, response, yield_to_loop)
        else:
            complete = capture.end is End.COMPLETE
            found = _read_whole(record, capture.sent_ns, response, stream=stream, complete=complete)
        # The stream's own content takes precedence over how the connection ended, except for OK: a request that we cut
        # off while the server still held the connection has not ended.
        if found is not None and (found[0] is not Outcome.OK or capture.end in {End.COMPLETE, End.CLOSED}):
            return found
    elif response.status and capture.end not in _BROKEN:
        text = _http_error_text(response)
        return (Outcome.REJECTED if response.status in _SHED else Outcome.ERROR), f"HTTP {response.status}: {text}"
    if capture.end in _BROKEN:
        return _BROKEN[capture.end], capture.detail
    return Outcome.TRUNCATED, capture.detail or "the stream ended with no finish_reason and [DONE]"


@dataclass(slots=True)
class _Stream:
    """The content of a stream's events."""

    arrivals: list[int] = field(default_factory=list)  # of the non-empty deltas, ns
    finish_reason: str | None = None
    done: bool = False
    usage: messages.Usage | None = None
    problem: str | None = None


def _read_events(response: Response, yield_to_loop: Callable[[], None]) -> _Stream:
    stream = _Stream()
    for number, (data, at_ns) in enumerate(read_events(response.fragments), 1):
        if not number % SLICE:
            yield_to_loop()
        if data == b"[DONE]":
            stream.done = True
            break
        try:
            answer = messages.decode(data)
        except messages.NOT_JSON as error:
            stream.problem = f"an event is not valid JSON: {error}"
            break
        text = messages.error_text(answer)
        if text is not None:
            stream.problem = f"error in the stream: {text}"
            break
        stream.usage = answer.usage or stream.usage
        for choice in answer.choices:
            if choice.has_output:
                stream.arrivals.append(at_ns)
            stream.finish_reason = choice.finish_reason or stream.finish_reason
    return stream


def _read_stream(
    record: RequestRecord, sent_ns: int, response: Response, yield_to_loop: Callable[[], None]
) -> tuple[Outcome, str] | None:
    """Fill in `record` from the events; return the outcome, None if they end without a terminal state."""
    stream = _read_events(response, yield_to_loop)
    _set_times(record, sent_ns, stream.arrivals)
    _set_tokens(record, stream.usage)
    if stream.problem is not None:
        return Outcome.ERROR, stream.problem
    if not stream.done or stream.finish_reason is None:
        return None
    if record.e2e is None:
        record.e2e = record.duration
    if stream.usage is None:
        return Outcome.ERROR, "no token counts (usage) in the stream: the server must honour stream_options"
    tokens, arrivals = stream.usage.completion_tokens, stream.arrivals
    if tokens > 1 and len(arrivals) > 1:
        record.tpot = (arrivals[-1] - arrivals[0]) * NS / (tokens - 1)
    return _finished(stream.finish_reason)


def _set_times(record: RequestRecord, sent_ns: int, arrivals: list[int]) -> None:
    if not arrivals:
        return
    record.ttft = (arrivals[0] - sent_ns) * NS
    record.e2e = (arrivals[-1] - sent_ns) * NS
    previous = arrivals[0]
    gaps = record.gaps
    for at_ns in arrivals[1:]:
        if at_ns == previous:
            record.merged_deltas += 1
        gaps.append((at_ns - previous) * NS)
        previous = at_ns


def _set_tokens(record: RequestRecord, usage: messages.Usage | None) -> None:
    if usage is None:
        return
    record.prompt_tokens = usage.prompt_tokens
    record.output_tokens = usage.completion_tokens
    if usage.prompt_tokens_details is not None:
        record.cached_tokens = usage.prompt_tokens_details.cached_tokens or 0


def _read_whole(
    record: RequestRecord, sent_ns: int, response: Response, *, stream: bool, complete: bool
) -> tuple[Outcome, str] | None:
    """Fill in `record` from one JSON document; return the outcome, None if the document is incomplete."""
    if not complete:
        return None
    try:
        answer = messages.decode(response.body)
    except messages.NOT_JSON as error:
        return Outcome.ERROR, f"the answer is not valid JSON: {error}"
    text = messages.error_text(answer)
    if text is not None:
        return Outcome.ERROR, f"error in the answer: {text}"
    if stream:
        return (
            Outcome.ERROR,
            f"a stream was asked for, the server sent {response.content_type or 'no content type'}",
        )
    record.e2e = (response.fragments[-1][1] - sent_ns) * NS
    _set_tokens(record, answer.usage)
    reasons = [choice.finish_reason for choice in answer.choices if choice.finish_reason]
    if reasons and answer.usage is None:
        return Outcome.ERROR, "no token counts (usage) in the answer"
    return _finished(reasons[0]) if reasons else None


def _finished(reason: str) -> tuple[Outcome, str]:
    # vLLM ends a request that it aborted, or that failed, with one of these.
    if reason in {"abort", "error"}:
        return Outcome.ERROR, f"finish_reason {reason}"
    return Outcome.OK, ""


def _http_error_text(response: Response) -> str:
    body = response.body
    try:
        return messages.error_text(messages.decode(body)) or body.decode("utf-8", "replace")
    except messages.NOT_JSON:
        return body.decode("utf-8", "replace")
