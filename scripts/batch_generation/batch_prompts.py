"""Parser of prompts from lines of text or JSONL, one at a time, in the memory of one line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LINE_LIMIT = 16 * 2**20  # bytes; a longer line is an error and must not fill the memory


@dataclass(frozen=True)
class BatchPrompt:
    """One prompt: text, or a chat's messages; `line` counts from 1."""

    line: int
    content: str | list[dict[str, str]]
    id: str | int | None = None


@dataclass(frozen=True)
class WrongLine:
    """A line without a valid prompt, and the reason."""

    line: int
    reason: str
    id: str | int | None = None


def from_arguments(texts: Iterable[str]) -> Iterator[BatchPrompt | WrongLine]:
    """Prompts from the command line, numbered from 1."""
    for number, text in enumerate(texts, 1):
        yield BatchPrompt(number, text) if text.strip() else WrongLine(number, "is empty")


def from_stream(stream: IO[bytes], *, jsonl: bool) -> Iterator[BatchPrompt | WrongLine]:
    """Prompts from a file, one per line. Blank lines are skipped, but counted."""
    for number, raw in enumerate(_lines(stream), 1):
        if raw is None:
            yield WrongLine(number, f"is longer than {LINE_LIMIT // 2**20} MiB")
            continue
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield WrongLine(number, f"is not UTF-8 at byte {error.start + 1}")
            continue
        if text.strip():
            yield _json_line(number, text) if jsonl else BatchPrompt(number, text)


def _lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Lines; None for one that is too long."""
    while raw := stream.readline(LINE_LIMIT):
        if len(raw) == LINE_LIMIT and not raw.endswith(b"\n"):
            while (rest := stream.readline(LINE_LIMIT)) and not rest.endswith(b"\n"):
                pass
            yield None
        else:
            yield raw


def _json_line(number: int, text: str) -> BatchPrompt | WrongLine:  # noqa: PLR0911  # a return for each way to be wrong
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return WrongLine(number, f"is not JSON: {error}")
    if not isinstance(row, dict):
        return WrongLine(number, 'is no JSON object: write {"prompt": "..."} or {"messages": [...]}')
    name = row.get("id")
    if not isinstance(name, str | int | None) or isinstance(name, bool):
        return WrongLine(number, "has an id that is neither text nor a whole number")
    if ("prompt" in row) == ("messages" in row):
        return WrongLine(number, 'needs either "prompt" or "messages"', name)
    if "prompt" in row:
        prompt = row["prompt"]
        if not isinstance(prompt, str) or not prompt.strip():
            return WrongLine(number, '"prompt" is not text, or empty', name)
        return BatchPrompt(number, prompt, name)
    if reason := _wrong_messages(row["messages"]):
        return WrongLine(number, reason, name)
    return BatchPrompt(number, row["messages"], name)


def _wrong_messages(messages: Any) -> str:
    """Problem with a chat's messages; empty for none."""
    if not isinstance(messages, list) or not messages:
        return '"messages" is no list, or empty'
    for place, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            return f'message {place} needs "role" and "content", both text'
    return ""
