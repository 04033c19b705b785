"""Progress on standard error: a redrawn line on a terminal, a new line every ten seconds in a log.

Not tqdm: without a terminal it redraws with carriage returns, which `docker compose logs` shows as one endless line.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from batch_generation.answer_output import Row

_WINDOW_S = 30.0  # for the rates: steady, yet follows a change
_LOG_EVERY_S = 10.0
_DRAW_EVERY_S = 0.5
_BLOCK = 2**20


def count_lines(path: Path) -> int:
    """Number of lines in a file, including a last one without line end."""
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


class BatchProgress:
    """Counts lines and tokens. `total` lines, None when unknown; an earlier run did the `first` ones."""

    def __init__(self, total: int | None, first: int = 0, out: IO[str] = sys.stderr) -> None:
        self._total = total
        self._line = self._first = first
        self._tokens = self._answered = self._wrong = 0
        self._out = out
        self._every = _DRAW_EVERY_S if out.isatty() else _LOG_EVERY_S
        self._start = self._shown = time.monotonic()
        self._window = deque([(self._start, first, 0)])

    def row(self, row: Row) -> None:
        """Count a written row, report an error in it, and print the progress when due."""
        self._line = row["line"]
        if "error" in row:
            self._wrong += 1
            print(f"{self._clear()}generate: line {row['line']} {row['error']}", file=self._out, flush=True)
        else:
            self._answered += 1
            self._tokens += row["output_tokens"]
        now = time.monotonic()
        if now - self._shown >= self._every:
            self._shown = now
            self._window.append((now, self._line, self._tokens))
            while len(self._window) > 2 and now - self._window[0][0] > _WINDOW_S:
                self._window.popleft()
            end = "" if self._out.isatty() else "\n"
            print(f"{self._clear()}generate: {self.line()}", end=end, file=self._out, flush=True)

    def _clear(self) -> str:
        return "\r\x1b[K" if self._out.isatty() else ""

    def line(self) -> str:
        """Progress as one line."""
        (then, lines, tokens), (now, here, made) = self._window[0], self._window[-1]
        seconds = max(now - then, 1e-9)
        rate = (here - lines) / seconds
        text = f"line {self._line}"
        if self._total:
            text += f" of {self._total} ({100 * self._line / self._total:.1f} %)"
        text += f"  {rate:.1f} prompts/s  {(made - tokens) / seconds:.0f} output tokens/s"
        if self._total and rate:
            text += f"  {_duration((self._total - self._line) / rate)} left"
        return text + (f"  {self._wrong} wrong" if self._wrong else "")

    def end(self) -> None:
        """Clear the progress and print the totals."""
        seconds = time.monotonic() - self._start
        before = f"lines up to {self._first} were done before, " if self._first else ""
        print(
            f"{self._clear()}generate: {before}{self._answered} answered, {self._wrong} wrong, "
            f"{self._tokens} output tokens in {seconds:.1f} s: {self._tokens / max(seconds, 1e-9):.1f} tokens/s",
            file=self._out,
            flush=True,
        )

    @property
    def wrong(self) -> int:
        """Number of wrong lines in this run."""
        return self._wrong


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
