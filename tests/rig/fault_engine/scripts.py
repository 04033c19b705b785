"""What the engine sends for a request, as steps in time: the healthy answer and every fault."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.rig.fault_engine import chunks


class Act(enum.Enum):
    """What to do with the connection instead of sending."""

    CLOSE = "close"
    RESET = "reset"  # TCP RST, as a crashed process leaves it


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as the engine understands it. Times in seconds."""

    endpoint: str
    stream: bool
    include_usage: bool
    prompt_tokens: int
    output_tokens: int
    ttft: float
    gap: float
    role_at: float | None = None  # when the role chunk comes; None: right before the first token


# seconds after the request's arrival, what to do, whether it is a token
Step = tuple[float, bytes | Act, bool]
Script = Iterator[Step]
FOREVER = 1e9


def healthy(ask: Ask) -> Script:
    """What vLLM sends."""
    if not ask.stream:
        end = ask.ttft + ask.gap * (ask.output_tokens - 1)
        yield end, chunks.json_response(200, chunks.whole(ask.endpoint, ask.prompt_tokens, ask.output_tokens)), True
        return
    yield from opening(ask)
    yield from tokens(ask, ask.output_tokens, finish="length")
    yield from ending(ask)


def opening(ask: Ask) -> Script:
    """Head and, for a chat, the role chunk."""
    start = chunks.HEAD_STREAM + (chunks.framed(chunks.role()) if ask.endpoint == "chat" else b"")
    yield (ask.ttft if ask.role_at is None else ask.role_at), start, False


def tokens(ask: Ask, count: int, finish: str | None = None) -> Script:
    """`count` tokens, the last with `finish`."""
    token = chunks.framed(chunks.token(ask.endpoint))
    due, gap = ask.ttft, ask.gap
    for _ in range(count - 1):
        yield due, token, True
        due += gap
    yield due, chunks.framed(chunks.token(ask.endpoint, finish=finish)), True


def at_end(ask: Ask, count: int | None = None) -> float:
    """When the last token is sent."""
    return ask.ttft + ask.gap * ((ask.output_tokens if count is None else count) - 1)


def ending(ask: Ask) -> Script:
    """Token counts, [DONE] and the end of the body."""
    data = chunks.framed(chunks.DONE) + chunks.LAST_CHUNK
    if ask.include_usage:
        data = chunks.framed(chunks.usage_event(ask.prompt_tokens, ask.output_tokens)) + data
    yield at_end(ask), data, False


_ERROR = {"error": {"message": "EngineCore encountered an issue", "type": "InternalServerError", "code": 500}}
_SOME = 3  # tokens before a fault in the middle


def _some(ask: Ask) -> Script:
    yield from opening(ask)
    yield from tokens(ask, _SOME)


def in_band_error(ask: Ask) -> Script:
    """vLLM's way to say that a started stream failed: HTTP 200 and an error event."""
    yield from _some(ask)
    data = chunks.framed(chunks.event(_ERROR)) + chunks.framed(chunks.DONE) + chunks.LAST_CHUNK
    yield at_end(ask, _SOME), data, False


def truncated(ask: Ask) -> Script:
    """A well-formed body that just ends."""
    yield from _some(ask)
    yield at_end(ask, _SOME), chunks.LAST_CHUNK, False


def no_done(ask: Ask) -> Script:
    """finish_reason and token counts, but no [DONE]."""
    yield from opening(ask)
    yield from tokens(ask, ask.output_tokens, finish="stop")
    usage = chunks.framed(chunks.usage_event(ask.prompt_tokens, ask.output_tokens))
    yield at_end(ask), usage + chunks.LAST_CHUNK, False


def no_finish_reason(ask: Ask) -> Script:
    """[DONE], but no finish_reason."""
    yield from opening(ask)
    yield from tokens(ask, ask.output_tokens)
    yield from ending(ask)


def no_usage(ask: Ask) -> Script:
    """A good stream without token counts, though they were asked for."""
    yield from opening(ask)
    yield from tokens(ask, ask.output_tokens, finish="length")
    yield at_end(ask), chunks.framed(chunks.DONE) + chunks.LAST_CHUNK, False


def aborted(ask: Ask) -> Script:
    """A stream that the engine gave up on."""
    yield from opening(ask)
    yield from tokens(ask, _SOME, finish="abort")
    yield from ending(ask)


def cut(ask: Ask) -> Script:
    """The connection closes in the middle of the body."""
    yield from _some(ask)
    yield at_end(ask, _SOME), Act.CLOSE, False


def reset(ask: Ask) -> Script:
    """The connection is reset in the middle of the body."""
    yield from _some(ask)
    yield at_end(ask, _SOME), Act.RESET, False


def cut_json(ask: Ask) -> Script:
    """Fewer bytes than Content-Length promised."""
    body = chunks.whole(ask.endpoint, ask.prompt_tokens, ask.output_tokens)
    yield ask.ttft, chunks.json_response(200, body, length=50), False
    yield ask.ttft, Act.CLOSE, False


def stall(ask: Ask) -> Script:
    """Some tokens, then nothing."""
    yield from _some(ask)
    yield FOREVER, b"", False


def no_end(ask: Ask) -> Script:
    """All that a good stream has, but the body never ends."""
    yield from opening(ask)
    yield from tokens(ask, ask.output_tokens, finish="length")
    done = chunks.framed(chunks.usage_event(ask.prompt_tokens, ask.output_tokens)) + chunks.framed(chunks.DONE)
    yield at_end(ask), done, False
    yield FOREVER, b"", False


def slow_loris(ask: Ask) -> Script:
    """One byte at a time, a head that never ends."""
    head = b"HTTP/1.1 200 OK\r\nx-slow: "
    for number in itertools.count():
        yield ask.gap * number, head[number : number + 1] or b"x", False


def silent(_ask: Ask) -> Script:
    """Accepts, and never answers."""
    yield FOREVER, b"", False


def silent_completions(ask: Ask) -> Script:
    """Answers chats, and never a completion."""
    return healthy(ask) if ask.endpoint == "chat" else silent(ask)


def closes_at_once(_ask: Ask) -> Script:
    """Closes without one byte."""
    yield 0.0, Act.CLOSE, False


def invalid_json(ask: Ask) -> Script:
    """An event that is not JSON."""
    yield from _some(ask)
    data = chunks.framed(b'data: {"choices": [{"delta"\n\n') + chunks.framed(chunks.DONE) + chunks.LAST_CHUNK
    yield at_end(ask, _SOME), data, False


def wrong_types(ask: Ask) -> Script:
    """An event that is JSON, but not the API's."""
    yield from _some(ask)
    data = chunks.framed(chunks.event({"choices": "none"})) + chunks.framed(chunks.DONE) + chunks.LAST_CHUNK
    yield at_end(ask, _SOME), data, False


def garbled(ask: Ask) -> Script:
    """What comes is not HTTP."""
    yield ask.ttft, b"SSH-2.0-OpenSSH_9.9\r\n", False
    yield ask.ttft, Act.CLOSE, False


def error_as_ok(ask: Ask) -> Script:
    """HTTP 200 with an error object."""
    yield ask.ttft, chunks.json_response(200, _ERROR), False


def whole_for_stream(ask: Ask) -> Script:
    """A whole answer though a stream was asked for."""
    body = chunks.whole(ask.endpoint, ask.prompt_tokens, ask.output_tokens)
    yield ask.ttft, chunks.json_response(200, body), False


def html(ask: Ask) -> Script:
    """HTTP 200 with a proxy's page."""
    yield ask.ttft, chunks.json_response(200, b"<html>login</html>", content_type="text/html"), False


def _status(code: int, body: object) -> Callable[[Ask], Script]:
    def script(ask: Ask) -> Script:
        yield ask.ttft, chunks.json_response(code, body), False

    return script


# Healthy answers in forms that a careless reader gets wrong.


def merged(ask: Ask) -> Script:
    """Two events in every segment."""
    yield from opening(ask)
    pair = chunks.framed(chunks.token(ask.endpoint) * 2)
    count = (ask.output_tokens - 1) // 2
    for number in range(count):
        yield ask.ttft + ask.gap * number, pair, True
    rest = ask.output_tokens - 2 * count
    end = ask.ttft + ask.gap * count
    last = chunks.token(ask.endpoint) * (rest - 1) + chunks.token(ask.endpoint, finish="length")
    yield end, chunks.framed(last), True
    for _, data, _ in ending(ask):
        yield end, data, False


def split(ask: Ask) -> Script:
    """Every event cut in two segments; it has arrived when its end has."""
    for due, data, is_token in healthy(ask):
        if isinstance(data, bytes) and is_token:
            yield due - ask.gap / 2, data[: len(data) // 2], False
            yield due, data[len(data) // 2 :], True
        else:
            yield due, data, is_token


def carriage_returns(ask: Ask) -> Script:
    """CRLF line ends, comments between events, and chunks that end amid a line end."""
    yield from opening(ask)
    for number in range(ask.output_tokens):
        finish = "length" if number == ask.output_tokens - 1 else None
        text = b": keep-alive\r\n\r\n" + chunks.token(ask.endpoint, finish=finish).replace(b"\n", b"\r\n")
        yield ask.ttft + ask.gap * number, chunks.framed(text[:-1]) + chunks.framed(text[-1:]), True
    yield from ending(ask)


def reasoning(ask: Ask) -> Script:
    """The first tokens are reasoning, the next a tool call: both are output."""
    yield from opening(ask)
    call = [{"index": 0, "function": {"arguments": "{"}}]
    yield ask.ttft, chunks.framed(chunks.token("chat", reasoning="hm")), True
    yield ask.ttft + ask.gap, chunks.framed(chunks.token("chat", reasoning_content="hm")), True
    yield ask.ttft + 2 * ask.gap, chunks.framed(chunks.token("chat", tool_calls=call)), True
    for number in range(3, ask.output_tokens):
        finish = "stop" if number == ask.output_tokens - 1 else None
        yield ask.ttft + ask.gap * number, chunks.framed(chunks.token("chat", finish=finish)), True
    yield from ending(ask)


def closes_after(ask: Ask) -> Script:
    """A good answer, then the idle connection is closed, without having said so."""
    yield from healthy(ask)
    yield at_end(ask), Act.CLOSE, False


def one_burst(ask: Ask) -> Script:
    """All tokens in one segment."""
    data = chunks.HEAD_STREAM + b"".join(step[1] for step in tokens(ask, ask.output_tokens, "length"))  # type: ignore[misc]  # tokens are bytes
    yield ask.ttft, data, True
    for _, rest, _ in ending(ask):
        yield ask.ttft, rest, False


SCRIPTS: dict[str, Callable[[Ask], Script]] = {
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
