from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from batch_generation import batch_prompts
from batch_generation.batch_prompts import BatchPrompt, WrongLine, from_arguments, from_stream

if TYPE_CHECKING:
    from collections.abc import Iterator


def jsonl(text: str | bytes) -> list[BatchPrompt | WrongLine]:
    return list(from_stream(io.BytesIO(text.encode() if isinstance(text, str) else text), jsonl=True))


def test_blank_lines_keep_their_number() -> None:
    found = list(from_stream(io.BytesIO(b"\xef\xbb\xbffirst\r\n\nthird"), jsonl=False))
    assert found == [BatchPrompt(1, "first"), BatchPrompt(3, "third")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('"text"', "is no JSON object"),
        ("{}", 'needs either "prompt" or "messages"'),
        ('{"prompt": "a", "messages": []}', 'needs either "prompt" or "messages"'),
        ('{"prompt": 7}', '"prompt" is not text'),
        ('{"prompt": " "}', '"prompt" is not text, or empty'),
        ('{"prompt": "a", "id": [1]}', "has an id"),
        ('{"messages": []}', '"messages" is no list, or empty'),
        ('{"messages": [{"role": "user"}]}', 'message 1 needs "role" and "content"'),
    ],
)
def test_wrong_line_keeps_the_others(line: str, reason: str) -> None:
    first, wrong, last = jsonl(f'{{"prompt": "a"}}\n{line}\n{{"prompt": "b", "id": "x"}}\n')
    assert first == BatchPrompt(1, "a")
    assert isinstance(wrong, WrongLine)
    assert wrong.line == 2
    assert wrong.reason.startswith(reason)
    assert last == BatchPrompt(3, "b", "x")


def test_invalid_utf8_is_one_wrong_line() -> None:
    wrong, right = jsonl(b'{"prompt": "\xff"}\n{"prompt": "b"}')
    assert wrong == WrongLine(1, "is not UTF-8 at byte 13")
    assert right == BatchPrompt(2, "b")


def test_endless_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_prompts, "LINE_LIMIT", 100)
    wrong, right = jsonl('{"prompt": "' + "a" * 1000 + '"}\n{"prompt": "b"}\n')
    assert isinstance(wrong, WrongLine)
    assert "longer than" in wrong.reason
    assert right == BatchPrompt(2, "b")


def test_lines_are_read_lazily() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b'{"prompt": "a"}\n'

    class Endless(io.RawIOBase):
        lines = endless()

        def readline(self, _size: int | None = -1, /) -> bytes:
            return next(self.lines)

    stream = from_stream(Endless(), jsonl=True)  # type: ignore[arg-type]  # only readline is used
    assert [next(stream).line for _ in range(1000)] == list(range(1, 1001))


def test_arguments_are_numbered() -> None:
    assert list(from_arguments(["a", ""])) == [BatchPrompt(1, "a"), WrongLine(2, "is empty")]
