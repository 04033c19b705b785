"""Fields that `--body` adds to every request body, replaces in it, or removes from it."""

import json
from collections.abc import Mapping
from typing import Any

from loadtest.input_error import InputError

OPTION = "--body"

LENGTH = "max_tokens"
NEWER_LENGTH = "max_completion_tokens"
_OPTIONS_OF = {
    "model": "--model",
    "stream": "--stream or --no-stream",
    "messages": "--dataset",
    "prompt": "--dataset",
    "input": "--dataset",
}
# A server puts these into the prompt, so that its length is another than was prepared.
_IN_PROMPT = ("tools", "functions", "documents", "chat_template", "chat_template_kwargs", "response_format")


def parse_body(text: str) -> dict[str, Any]:
    """Read one KEY=JSON a line, or a whole JSON object; None stands for a field to remove. Raises InputError."""
    if text.strip().startswith("{"):
        fields: dict[str, Any] = _parse_json(text, "the object")
    else:
        fields = dict(_parse_field(line) for line in text.splitlines() if line.strip())
    for key in fields:
        _check_key(key)
    return fields


def _check_key(key: str) -> None:
    if key in _OPTIONS_OF:
        raise InputError(OPTION, f"{key} is set by another option", f"use {_OPTIONS_OF[key]}")


def _parse_field(line: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in line.partition("="))
    if not equals or not key:
        raise InputError(OPTION, f"{line.strip()[:40]!r} has no key and '='", "write it like temperature=0.7")
    _check_key(key)
    if not value:
        return key, None
    if (key, value) == (NEWER_LENGTH, LENGTH):
        return key, value
    return key, _parse_json(value, key)


def _parse_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(
            OPTION,
            f"{what}: {' '.join(text.split())[:40]!r} is no JSON",
            'write it like temperature=0.7, user="me" (with its quotes) or stop=["a"]',
        ) from None


def apply_body(own: dict[str, Any], extra: Mapping[str, Any]) -> str:
    """Change the fields `own` by `extra`; return the name under which the output's length is to be sent, "" for none.

    A `max_completion_tokens` takes the place of `max_tokens`, with the same number if it names that.
    """
    length = LENGTH
    for key, value in extra.items():
        if key == LENGTH or (key == NEWER_LENGTH and value is not None and LENGTH not in extra):
            length = ""
        if (key, value) == (NEWER_LENGTH, LENGTH):
            length = NEWER_LENGTH
            own.pop(key, None)
        elif value is None:
            own.pop(key, None)
        else:
            own[key] = value
    return length


def fixed_length(extra: Mapping[str, Any]) -> int | None:
    """Return the tokens to generate that `extra` sets for all requests, None if it sets none."""
    for name in (NEWER_LENGTH, LENGTH):
        value = extra.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def added_to_prompts(extra: Mapping[str, Any]) -> int:
    """Return the most tokens that `extra` may add to every prompt."""
    return sum(len(json.dumps(extra[name])) for name in _IN_PROMPT if extra.get(name))
