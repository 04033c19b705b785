"""An answer as the client captured it, made of events and the times at which they arrived."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from loadtest.client.connection import Capture, End
from loadtest.client.outcome import judge
from loadtest.workload import RequestSpec

if TYPE_CHECKING:
    from loadtest.client.request_record import RequestRecord

START_NS = 1_700_000_000_000_000_000
_SPEC = RequestSpec(0, "chat", b"{}", None, 16)


def delta(finish: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    """A chat chunk."""
    return {"choices": [{"index": index, "delta": fields, "finish_reason": finish}]}


def text(finish: str | None = None) -> dict[str, Any]:
    """A chat chunk with one token."""
    return delta(finish, content=" a")


def usage(completion: int | None, prompt: int = 8, **more: Any) -> dict[str, Any]:
    """The chunk with the token counts."""
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **more}}


def event(data: object) -> bytes:
    """One server-sent event; what is bytes already stays as it is."""
    if isinstance(data, bytes):
        return data
    return b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n"


def capture(reads: list[tuple[float, bytes]], *, end: End = End.COMPLETE) -> Capture:
    """A capture of `reads`, each with the milliseconds after sending at which it arrived."""
    made = Capture(sent_ns=START_NS, end=end)
    for at_ms, data in reads:
        made.ended_ns = START_NS + round(at_ms * 1e6)
        made.reads.append((data, b"", made.ended_ns))
    return made


def response(body: list[tuple[float, bytes]], *head: str, status: str = "200 OK") -> list[tuple[float, bytes]]:
    """The reads of a response with this body, which ends with the connection."""
    first = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *head, "")).encode()
    return [(0.0, first), *body]


def judge_stream(
    *events: object, gap_ms: float = 20.0, content_type: str = "text/event-stream", end: End = End.COMPLETE
) -> RequestRecord:
    """The record of a streamed answer whose events come `gap_ms` apart; a float is a pause in ms."""
    at_ms, body = 0.0, []
    for each in events:
        if isinstance(each, float):
            at_ms += each
        else:
            at_ms += gap_ms
            body.append((at_ms, event(each)))
    return judge(_SPEC, capture(response(body, f"Content-Type: {content_type}"), end=end), stream=True)


def judge_body(
    body: bytes, *head: str, status: str = "200 OK", stream: bool = True, end: End = End.COMPLETE
) -> RequestRecord:
    """The record of an answer in one piece."""
    return judge(_SPEC, capture(response([(50.0, body)], *head, status=status), end=end), stream=stream)
