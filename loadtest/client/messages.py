"""The measured parts of OpenAI API responses, decoded strictly and fast."""

from __future__ import annotations

from typing import Any

import msgspec


class PromptDetails(msgspec.Struct):
    """`usage.prompt_tokens_details`."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """`usage`: the server's own token counts."""

    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None


class Delta(msgspec.Struct):
    """A chat chunk's `delta`, or a whole `message`; vLLM has used both names for the reasoning text."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None

    @property
    def has_output(self) -> bool:
        """True if it holds model output; the role alone is none."""
        return bool(self.content or self.reasoning_content or self.reasoning or self.tool_calls)


class Choice(msgspec.Struct):
    """One choice of a chunk (`delta` or `text`) or of a whole response (`message` or `text`)."""

    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None

    @property
    def has_output(self) -> bool:
        """True if it holds model output."""
        return bool(self.text) or (self.delta is not None and self.delta.has_output)


class CompletionMessage(msgspec.Struct):
    """One chunk of a stream, or a whole response."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None
    object: str | None = None
    message: Any = None


_decoder = msgspec.json.Decoder(CompletionMessage)
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(data: bytes) -> CompletionMessage:
    """Decode one JSON object. Raises one of NOT_JSON if it is not JSON or has wrong types."""
    return _decoder.decode(data)


def error_text(answer: CompletionMessage) -> str | None:
    """Return the text of an error object, None if it is none; vLLM before 0.9 sent `object: error` and `message`."""
    if answer.error:
        text = answer.error.get("message") if isinstance(answer.error, dict) else answer.error
        return str(text or answer.error)
    if answer.object == "error":
        return str(answer.message or "error without a message")
    return None
