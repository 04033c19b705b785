"""Outputs for answers: text or JSONL on standard output, or a JSONL file that a later run continues.

The file grows by whole rows, in the order of the input, so its last row shows where a run stopped. A truncated last row
is removed and generated again.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]
_BLOCK = 2**16
_BEGIN = b'{"line": '  # of every row


class OutputError(Exception):
    """An output file that cannot be continued; the message is one line."""


class PrintedAnswers:
    """Answers on a stream, as text like `Prompt: '...', Generated text: '...'` or as JSONL."""

    last: Row | None = None

    def __init__(self, out: IO[str], *, jsonl: bool) -> None:
        self._out = out
        self._jsonl = jsonl

    def write(self, row: Row) -> None:
        """Print one row; as text, errors are left out."""
        if self._jsonl:
            self._out.write(_dump(row))
        elif "error" not in row:
            prompt = row.get("prompt") or row["messages"][-1]["content"]
            self._out.write(f"Prompt: {prompt!r}, Generated text: {row['text']!r}\n")

    def flush(self) -> None:
        """Flush the stream."""
        self._out.flush()


class AnswerFile:
    """Answers in a file. `last` is the last whole row of an earlier run, None in a new file.

    `run` is the fingerprint of the settings that decide an answer. Raises OutputError when the file has another one,
    when another process writes to it, or when it cannot be written.
    """

    def __init__(self, path: Path, run: str) -> None:
        self._path = path
        try:
            self._file = path.open("r+b" if path.exists() else "x+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"{path} is being written by another run: wait for it, or choose another --output"
            ) from None
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror}): choose another --output") from None
        self.last = self._recover(run)

    def _recover(self, run: str) -> Row | None:
        """Return the last whole row and truncate a partial one after it; other files are not touched."""
        size = self._file.seek(0, os.SEEK_END)
        end = self._line_start(size)
        row: Row | None = None
        if end:
            start = self._line_start(end - 1)
            self._file.seek(start)
            row = self._parse(self._file.read(end - start))
            if row["run"] != run:
                raise OutputError(
                    f"{self._path} was made with another model or other sampling: "
                    "choose another --output, or the same settings"
                )
        self._file.seek(end)
        torn = self._file.read(len(_BEGIN))
        if not _BEGIN.startswith(torn):
            raise OutputError(self._foreign)
        self._file.truncate(end)
        self._file.seek(end)
        return row

    def _parse(self, line: bytes) -> Row:
        try:
            row: Row = json.loads(line)
            int(row["line"]), str(row["run"])
        except (ValueError, TypeError, KeyError):
            raise OutputError(self._foreign) from None
        return row

    @property
    def _foreign(self) -> str:
        return f"{self._path} was not written by this job: choose another --output"

    def _line_start(self, end: int) -> int:
        """Offset after the last line end before `end`."""
        while end > 0:
            start = max(0, end - _BLOCK)
            self._file.seek(start)
            if (found := self._file.read(end - start).rfind(b"\n")) >= 0:
                return start + found + 1
            end = start
        return 0

    def write(self, row: Row) -> None:
        """Append one row."""
        self._file.write(_dump(row).encode())

    def flush(self) -> None:
        """Flush to the kernel, so that rows outlive this process."""
        self._file.flush()


def _dump(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
