"""Response objects of the OpenAI API, as far as they are measured: typed decoding, and a tolerant one if that fails."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class PromptDetails(msgspec.Struct):
    """`usage.prompt_tokens_details`."""

    cached_tokens: Count | None = None


class CompletionDetails(msgspec.Struct):
    """`usage.completion_tokens_details`."""

    reasoning_tokens: Count | None = None


class Usage(msgspec.Struct):
    """`usage`: the server's token counts; None for a count that the server did not give."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    reasoning_tokens: Count | None = None  # SGLang
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    def fill_from(self, earlier: Usage) -> None:
        """Take from an earlier chunk's `usage` what this one does not give."""
        for name in self.__struct_fields__:
            if getattr(self, name) is None:
                setattr(self, name, getattr(earlier, name))

    @property
    def reasoning(self) -> int:
        """Reasoning tokens; 0 if the server gives no number."""
        details = self.completion_tokens_details
        return (details.reasoning_tokens if details is not None else None) or self.reasoning_tokens or 0


class Delta(msgspec.Struct):
    """`delta` of a chat chunk, or a whole `message`; vLLM has used both names of the reasoning text."""

    content: str | list[Any] | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None
    function_call: Any = None
    refusal: Any = None
    audio: Any = None


class Choice(msgspec.Struct):
    """One choice of a chunk (`delta` or `text`) or of a whole answer (`message` or `text`)."""

    index: Any = 0
    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class CompletionMessage(msgspec.Struct):
    """One chunk of a stream, or a whole answer."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None
    object: Any = None
    message: Any = None


_decoder = msgspec.json.Decoder(CompletionMessage)
NOT_JSON = (msgspec.DecodeError, ValueError, RecursionError)


def decode(data: bytes) -> CompletionMessage:
    """Decode one JSON object. Raises one of NOT_JSON if it is not JSON or has unusable types."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _decode_tolerantly(data, error)


def _decode_tolerantly(data: bytes, error: Exception) -> CompletionMessage:
    """Decode what Python's `json` takes too: NaN, Infinity, half a surrogate pair; counts that are no counts are None.

    Raises `error` if that does not either.
    """
    try:
        answer = json.loads(data.decode())
    except ValueError:
        raise error from None
    if not isinstance(answer, dict):
        raise error
    answer["usage"] = _counts(answer.get("usage"))
    choices = answer.get("choices")
    if isinstance(choices, list):
        answer["choices"] = [choice for choice in choices if choice is not None]
    return msgspec.convert(answer, CompletionMessage, strict=False)


def _counts(usage: Any) -> dict[str, Any] | None:
    """Keep the whole numbers from 0 up and the objects of them; None if `usage` is no object."""
    if not isinstance(usage, dict):
        return None
    kept: dict[str, Any] = {}
    for name, value in usage.items():
        if isinstance(value, dict):
            kept[name] = _counts(value)
        elif isinstance(value, (int, float)) and value >= 0 and value < 2**53 and value == int(value):
            kept[name] = int(value)
    return kept


# Kinds of output in a choice.
REASONING, ANSWER = "reasoning", "answer"
_REASONING_PARTS = {"thinking", "reasoning", "redacted_thinking"}


def read_output(delta: Delta | None, text: str | None) -> dict[str, str]:
    """Return the text of each kind of output in a choice; a kind without text, such as audio, has an empty one.

    `delta` is a chunk's delta or the message of a whole answer, `text` that of the completions API.

    The role alone is not output. Text of tool calls is their function's name and arguments.
    """
    found: dict[str, str] = {}
    if text:
        found[ANSWER] = text
    if delta is None:
        return found
    if isinstance(delta.content, list):
        for part in delta.content:
            kind = REASONING if isinstance(part, dict) and part.get("type") in _REASONING_PARTS else ANSWER
            part_text = _all_text(part)
            if part_text:
                found[kind] = found.get(kind, "") + part_text
    elif delta.content:
        found[ANSWER] = found.get(ANSWER, "") + delta.content
    for kind, value in (
        (REASONING, delta.reasoning_content or delta.reasoning),
        (ANSWER, delta.tool_calls),
        (ANSWER, delta.function_call),
        (ANSWER, delta.refusal),
        (ANSWER, delta.audio),
    ):
        if value:
            found[kind] = found.get(kind, "") + _all_text(value)
    return found


_TEXT_FIELDS = ("text", "thinking", "refusal", "content", "function", "name", "arguments")


_DEEPEST = 6  # a list of parts, a part, its list of parts, a part, its text


def _all_text(value: Any, depth: int = 0) -> str:
    """Return the text in a part, or in a list of parts or of tool calls."""
    if isinstance(value, str):
        return value
    if depth == _DEEPEST:
        return ""
    if isinstance(value, list):
        return "".join(_all_text(each, depth + 1) for each in value)
    if isinstance(value, dict):
        return "".join(_all_text(value[name], depth + 1) for name in _TEXT_FIELDS if name in value)
    return ""


def error_text(answer: CompletionMessage) -> str | None:
    """Return the text of an error object, None if there is none; vLLM before 0.9 sent `object: error` and `message`."""
    if answer.error:
        text = answer.error.get("message") if isinstance(answer.error, dict) else answer.error
        return str(text or answer.error)
    if answer.object == "error":
        return str(answer.message or "error without a message")
    return None
