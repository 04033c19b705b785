"""Responses of the engine as steps in time: the healthy one and every fault."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.rig.fault_engine import chunks


class Act(enum.Enum):
    """Action on the connection instead of sending."""

    CLOSE = "close"
    RESET = "reset"  # TCP RST, as from a crashed process


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A parsed request, with the timing of its response in seconds."""

    endpoint: str
    stream: bool
    include_usage: bool
    prompt_tokens: int
    output_tokens: int
    ttft: float
    gap: float
    role_at: float | None = None  # time of the role chunk; None: right before the first token


# Seconds after the request's arrival, bytes or action, True for a token.
Step = tuple[float, bytes | Act, bool]
Script = Iterator[Step]
FOREVER = 1e9


def healthy(request: EngineRequest) -> Script:
    """Response of a healthy vLLM."""
    if not request.stream:
        end = request.ttft + request.gap * (request.output_tokens - 1)
        yield (
            end,
            chunks.json_response(200, chunks.whole(request.endpoint, request.prompt_tokens, request.output_tokens)),
            True,
        )
        return
    yield from opening(request)
    yield from tokens(request, request.output_tokens, finish="length")
    yield from ending(request)


def opening(request: EngineRequest) -> Script:
    """Yield the head and, for a chat, the role chunk."""
    start = chunks.HEAD_STREAM + (chunks.framed(chunks.role()) if request.endpoint == "chat" else b"")
    yield (request.ttft if request.role_at is None else request.role_at), start, False


def tokens(request: EngineRequest, count: int, finish: str | None = None) -> Script:
    """Yield `count` tokens, the last with `finish`."""
    token = chunks.framed(chunks.token(request.endpoint))
    due, gap = request.ttft, request.gap
    for _ in range(count - 1):
        yield due, token, True
        due += gap
    yield due, chunks.framed(chunks.token(request.endpoint, finish=finish)), True


def at_end(request: EngineRequest, count: int | None = None) -> float:
    """Return the time of the last token."""
    return request.ttft + request.gap * ((request.output_tokens if count is None else count) - 1)


def ending(request: EngineRequest) -> Script:
    """Yield token counts, [DONE] and the end of the body."""
    data = chunks.framed(chunks.DONE) + chunks.LAST_CHUNK
    if request.include_usage:
        data = chunks.framed(chunks.usage_event(request.prompt_tokens, request.output_tokens)) + data
    yield at_end(request), data, False


_ERROR = {"error": {"message": "EngineCore encountered an issue", "type": "InternalServerError", "code": 500}}
_TOKENS_BEFORE_FAULT = 3  # tokens before a fault in the middle


def _first_tokens(request: EngineRequest) -> Script:
    yield from opening(request)
    yield from tokens(request, _TOKENS_BEFORE_FAULT)


def in_band_error(request: EngineRequest) -> Script:
    """Failure of a started stream as vLLM reports it: HTTP 200 and an error event."""
    yield from _first_tokens(request)
    data = chunks.framed(chunks.event(_ERROR)) + chunks.framed(chunks.DONE) + chunks.LAST_CHUNK
    yield at_end(request, _TOKENS_BEFORE_FAULT), data, False


def truncated(request: EngineRequest) -> Script:
    """A well-formed body that ends too early."""
    yield from _first_tokens(request)
    yield at_end(request, _TOKENS_BEFORE_FAULT), chunks.LAST_CHUNK, False


def no_done(request: EngineRequest) -> Script:
    """finish_reason and token counts, but no [DONE]."""
    yield from opening(request)
    yield from tokens(request, request.output_tokens, finish="stop")
    usage = chunks.framed(chunks.usage_event(request.prompt_tokens, request.output_tokens))
    yield at_end(request), usage + chunks.LAST_CHUNK, False


def no_finish_reason(request: EngineRequest) -> Script:
    """[DONE], but no finish_reason."""
    yield from opening(request)
    yield from tokens(request, request.output_tokens)
    yield from ending(request)


def no_usage(request: EngineRequest) -> Script:
    """A complete stream without the requested token counts."""
    yield from opening(request)
    yield from tokens(request, request.output_tokens, finish="length")
    yield at_end(request), chunks.framed(chunks.DONE) + chunks.LAST_CHUNK, False


def aborted(request: EngineRequest) -> Script:
    """A stream aborted by the engine."""
    yield from opening(request)
    yield from tokens(request, _TOKENS_BEFORE_FAULT, finish="abort")
    yield from ending(request)


def cut(request: EngineRequest) -> Script:
    """The connection closes in the middle of the body."""
    yield from _first_tokens(request)
    yield at_end(request, _TOKENS_BEFORE_FAULT), Act.CLOSE, False


def reset(request: EngineRequest) -> Script:
    """The connection is reset in the middle of the body."""
    yield from _first_tokens(request)
    yield at_end(request, _TOKENS_BEFORE_FAULT), Act.RESET, False


def cut_json(request: EngineRequest) -> Script:
    """Fewer bytes than Content-Length announces."""
    body = chunks.whole(request.endpoint, request.prompt_tokens, request.output_tokens)
    yield request.ttft, chunks.json_response(200, body, length=50), False
    yield request.ttft, Act.CLOSE, False


def stall(request: EngineRequest) -> Script:
    """Some tokens, then silence."""
    yield from _first_tokens(request)
    yield FOREVER, b"", False


def no_end(request: EngineRequest) -> Script:
    """A complete stream whose body never ends."""
    yield from opening(request)
    yield from tokens(request, request.output_tokens, finish="length")
    done = chunks.framed(chunks.usage_event(request.prompt_tokens, request.output_tokens)) + chunks.framed(chunks.DONE)
    yield at_end(request), done, False
    yield FOREVER, b"", False


def slow_loris(request: EngineRequest) -> Script:
    """One byte at a time, a head that never ends."""
    head = b"HTTP/1.1 200 OK\r\nx-slow: "
    for number in itertools.count():
        yield request.gap * number, head[number : number + 1] or b"x", False


def silent(_ask: EngineRequest) -> Script:
    """The request is accepted and never answered."""
    yield FOREVER, b"", False


def silent_completions(request: EngineRequest) -> Script:
    """Chats are answered, completions never."""
    return healthy(request) if request.endpoint == "chat" else silent(request)


def closes_at_once(_ask: EngineRequest) -> Script:
    """The connection closes without one byte."""
    yield 0.0, Act.CLOSE, False


def invalid_json(request: EngineRequest) -> Script:
    """An event that is not JSON."""
    yield from _first_tokens(request)
    data = chunks.framed(b'data: {"choices": [{"delta"\n\n') + chunks.framed(chunks.DONE) + chunks.LAST_CHUNK
    yield at_end(request, _TOKENS_BEFORE_FAULT), data, False


def wrong_types(request: EngineRequest) -> Script:
    """An event that is JSON, but not of the API."""
    yield from _first_tokens(request)
    data = chunks.framed(chunks.event({"choices": "none"})) + chunks.framed(chunks.DONE) + chunks.LAST_CHUNK
    yield at_end(request, _TOKENS_BEFORE_FAULT), data, False


def garbled(request: EngineRequest) -> Script:
    """The response is not HTTP."""
    yield request.ttft, b"SSH-2.0-OpenSSH_9.9\r\n", False
    yield request.ttft, Act.CLOSE, False


def error_as_ok(request: EngineRequest) -> Script:
    """HTTP 200 with an error object."""
    yield request.ttft, chunks.json_response(200, _ERROR), False


def whole_for_stream(request: EngineRequest) -> Script:
    """A whole response to a request for a stream."""
    body = chunks.whole(request.endpoint, request.prompt_tokens, request.output_tokens)
    yield request.ttft, chunks.json_response(200, body), False


def html(request: EngineRequest) -> Script:
    """HTTP 200 with a proxy's page."""
    yield request.ttft, chunks.json_response(200, b"<html>login</html>", content_type="text/html"), False


def _status(code: int, body: object) -> Callable[[EngineRequest], Script]:
    def script(request: EngineRequest) -> Script:
        yield request.ttft, chunks.json_response(code, body), False

    return script


# Healthy responses in unusual forms.


def merged(request: EngineRequest) -> Script:
    """Two events in every segment."""
    yield from opening(request)
    pair = chunks.framed(chunks.token(request.endpoint) * 2)
    count = (request.output_tokens - 1) // 2
    for number in range(count):
        yield request.ttft + request.gap * number, pair, True
    rest = request.output_tokens - 2 * count
    end = request.ttft + request.gap * count
    last = chunks.token(request.endpoint) * (rest - 1) + chunks.token(request.endpoint, finish="length")
    yield end, chunks.framed(last), True
    for _, data, _ in ending(request):
        yield end, data, False


def split(request: EngineRequest) -> Script:
    """Every event cut in two segments; it arrives with its end."""
    for due, data, is_token in healthy(request):
        if isinstance(data, bytes) and is_token:
            yield due - request.gap / 2, data[: len(data) // 2], False
            yield due, data[len(data) // 2 :], True
        else:
            yield due, data, is_token


def carriage_returns(request: EngineRequest) -> Script:
    """CRLF line ends, comments between events, and chunks that end within a line end."""
    yield from opening(request)
    for number in range(request.output_tokens):
        finish = "length" if number == request.output_tokens - 1 else None
        text = b": keep-alive\r\n\r\n" + chunks.token(request.endpoint, finish=finish).replace(b"\n", b"\r\n")
        yield request.ttft + request.gap * number, chunks.framed(text[:-1]) + chunks.framed(text[-1:]), True
    yield from ending(request)


def reasoning(request: EngineRequest) -> Script:
    """The first tokens are reasoning, the next a tool call: both are output."""
    yield from opening(request)
    call = [{"index": 0, "function": {"arguments": "{"}}]
    yield request.ttft, chunks.framed(chunks.token("chat", reasoning="hm")), True
    yield request.ttft + request.gap, chunks.framed(chunks.token("chat", reasoning_content="hm")), True
    yield request.ttft + 2 * request.gap, chunks.framed(chunks.token("chat", tool_calls=call)), True
    for number in range(3, request.output_tokens):
        finish = "stop" if number == request.output_tokens - 1 else None
        yield request.ttft + request.gap * number, chunks.framed(chunks.token("chat", finish=finish)), True
    yield from ending(request)


def closes_after(request: EngineRequest) -> Script:
    """A healthy response, then the idle connection is closed without notice."""
    yield from healthy(request)
    yield at_end(request), Act.CLOSE, False


def one_burst(request: EngineRequest) -> Script:
    """All tokens in one segment."""
    data = chunks.HEAD_STREAM + b"".join(step[1] for step in tokens(request, request.output_tokens, "length"))  # type: ignore[misc]  # tokens are bytes
    yield request.ttft, data, True
    for _, rest, _ in ending(request):
        yield request.ttft, rest, False


SCRIPTS: dict[str, Callable[[EngineRequest], Script]] = {
    "healthy": healthy,
    "in-band-error": in_band_error,
    "truncated": truncated,
    "no-done": no_done,
    "no-finish-reason": no_finish_reason,
    "no-usage": no_usage,
    "aborted": aborted,
    "cut": cut,
    "reset": reset,
    "cut-json": cut_json,
    "stall": stall,
    "no-end": no_end,
    "slow-loris": slow_loris,
    "silent": silent,
    "silent-completions": silent_completions,
    "closes-at-once": closes_at_once,
    "invalid-json": invalid_json,
    "wrong-types": wrong_types,
    "garbled": garbled,
    "error-as-ok": error_as_ok,
    "whole-for-stream": whole_for_stream,
    "html": html,
    "http-400": _status(400, {"object": "error", "message": "maximum context length", "code": 400}),
    "http-404": _status(404, {"error": {"message": "The model `x` does not exist."}}),
    "http-429": _status(429, {"error": {"message": "too many requests"}}),
    "http-500": _status(500, b"Internal Server Error"),
    "http-503": _status(503, {"error": {"message": "queue is full"}}),
    "merged": merged,
    "split": split,
    "carriage-returns": carriage_returns,
    "reasoning": reasoning,
    "closes-after": closes_after,
    "one-burst": one_burst,
}
