"""Content of a streamed answer: arrivals, text, token counts, and the time per token that was seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from loadtest.client import messages
from loadtest.client.http import SLICE, Response
from loadtest.client.sse import split_events

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# A token has a byte of text or more, except the end of text and such marks.
_TOKENS_WITHOUT_TEXT = 4
# Reasoning text shorter than this a token is a summary, not the reasoning itself.
_FEWEST_BYTES = 2
# A longer text a token has more tokens than were counted: reasoning in the answer's text, or a wrong count.
_MOST_BYTES = 16
# Beginning of a body that is one JSON document or a page.
_NO_STREAM = (b"{", b"[", b"<")
_FIELDS = (b"data:", b":", b"event:", b"id:", b"retry:")


@dataclass(slots=True)
class Stream:
    """The content of a stream's events. `arrivals_ns` are those of events with output, in Unix nanoseconds."""

    arrivals_ns: NDArray[np.int64]
    answer: list[str] = field(default_factory=list)  # text, refusals, tool calls, of events that were decoded
    plain_bytes: int = 0  # text of the others, in UTF-8
    reasoning: list[str] = field(default_factory=list)
    answers: int = 0  # events with a part of the answer
    first_answer_ns: int | None = None
    last_answer_ns: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    several_choices: bool = False
    done_ns: int | None = None  # arrival of [DONE]
    usage: messages.Usage | None = None
    problem: str | None = None


def is_stream(response: Response) -> bool:
    """Return whether the body is an event stream, whatever its Content-Type: gateways set wrong ones."""
    start = response.body[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if response.content_type.startswith("text/event-stream"):
        return not start.startswith(_NO_STREAM)
    return start.startswith(_FIELDS)


def read_stream(response: Response, yield_to_loop: Callable[[], None]) -> Stream:
    """Read the events up to [DONE] or a problem. `yield_to_loop` is called every SLICE events."""
    events = split_events(response)
    stream = Stream(events.arrivals)
    answered = events.plain > 0
    thought = np.zeros(len(answered), np.bool_)
    end = len(answered)  # number of the first event that is not read
    for count, (number, data) in enumerate(events.others, 1):
        if not count % SLICE:
            yield_to_loop()
        if data.startswith(b"[DONE]"):
            stream.done_ns = int(events.arrivals[number])
        else:
            answered[number], thought[number] = _add(stream, data)
        if stream.done_ns is not None or stream.problem is not None:
            end = number
            break
    answers_ns = events.arrivals[:end][answered[:end]]
    stream.answers = len(answers_ns)
    if stream.answers:
        stream.first_answer_ns, stream.last_answer_ns = int(answers_ns[0]), int(answers_ns[-1])
    stream.plain_bytes = int(events.plain[:end].sum())
    stream.arrivals_ns = events.arrivals[:end][(answered | thought)[:end]] if thought.any() else answers_ns
    return stream


def _add(stream: Stream, data: bytes) -> tuple[bool, bool]:
    """Add an event to `stream`; returns whether it has a part of the answer, and of the reasoning."""
    try:
        message = messages.decode(data)
    except messages.NOT_JSON as error:
        if data.strip():  # gateways keep a stream alive with empty ones
            stream.problem = f"an event is not valid JSON: {error}: {data[:80].decode('utf-8', 'replace')}"
        return False, False
    if message.error or message.object == "error":
        stream.problem = f"error in the stream: {messages.error_text(message)}"
        return False, False
    if message.usage is not None:
        if stream.usage is not None:
            message.usage.fill_from(stream.usage)
        stream.usage = message.usage
    return _add_choices(stream, message.choices) if message.choices else (False, False)


def _add_choices(stream: Stream, choices: list[messages.Choice]) -> tuple[bool, bool]:
    answered = thought = False
    for choice in choices:
        if choice.finish_reason:
            stream.finish_reasons.append(choice.finish_reason)
        if choice.index:
            stream.several_choices = True
        delta = choice.delta
        content = choice.text if delta is None else delta.content
        # The common case, one for each token: text alone.
        if (
            content
            and type(content) is str
            and (delta is None or not (delta.reasoning_content or delta.reasoning or delta.tool_calls))
        ):
            stream.answer.append(content)
            answered = True
            continue
        for kind, text in messages.read_output(delta, choice.text).items():
            if kind == messages.ANSWER:
                stream.answer.append(text)
                answered = True
            else:
                stream.reasoning.append(text)
                thought = True
    return answered, thought


def time_per_token(stream: Stream) -> float | None:
    """Return (last - first) / (tokens - 1) in nanoseconds, of the tokens that were seen; None if not known.

    Tokens that were not sent as text have no arrival: reasoning that the server hides or summarises is left out with
    its tokens. Not known: the text cannot be that of so many tokens, or of so few; all of it came at once; or there are
    several choices, for which `usage` has one count.
    """
    usage = stream.usage
    if usage is None or usage.completion_tokens is None or stream.several_choices or not len(stream.arrivals_ns):
        return None
    tokens, deltas = usage.completion_tokens, len(stream.arrivals_ns)
    first, last = int(stream.arrivals_ns[0]), int(stream.arrivals_ns[-1])
    answer, reasoning = stream.plain_bytes + _size(stream.answer), _size(stream.reasoning)
    size = answer + reasoning
    if usage.reasoning:
        answer_tokens = tokens if _reasoning_is_extra(usage) else tokens - usage.reasoning
        tokens = answer_tokens + usage.reasoning
        shown = reasoning >= _FEWEST_BYTES * usage.reasoning
        in_answer = not reasoning and (stream.answers > answer_tokens + 1 or answer > _MOST_BYTES * answer_tokens)
        if not (shown or in_answer):
            tokens, size, deltas = answer_tokens, answer, stream.answers
            first, last = stream.first_answer_ns or last, stream.last_answer_ns
    if tokens < 2 or deltas < 2 or not size / _MOST_BYTES - 1 <= tokens <= size + _TOKENS_WITHOUT_TEXT:
        return None
    return (last - first) / (tokens - 1)


def _reasoning_is_extra(usage: messages.Usage) -> bool:
    """Return whether `completion_tokens` leaves out the reasoning, as xAI and Gemini count."""
    completion = usage.completion_tokens or 0
    total = (usage.prompt_tokens or 0) + completion + usage.reasoning
    return usage.reasoning > completion or usage.total_tokens == total


def _size(texts: list[str]) -> int:
    """Return the text's bytes in UTF-8."""
    return len("".join(texts).encode("utf-8", "surrogatepass"))
