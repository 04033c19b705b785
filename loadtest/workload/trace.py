"""Recorded traffic from a CSV file: arrival times and lengths of requests."""

import csv
import math
from array import array
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TextIO

from loadtest.input_error import InputError
from loadtest.workload.draws import Draws

OPTION = "--trace"

_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_MOST_TOKENS = 100_000_000


class Trace:
    """The requests of a trace file, 16 bytes each.

    The columns are those of the Azure LLM inference traces: TIMESTAMP (ISO 8601, or seconds), ContextTokens
    and GeneratedTokens; other columns are ignored.
    """

    def __init__(self, path: Path, times: "array[float]", prompts: "array[int]", outputs: "array[int]") -> None:
        """Use `Trace.read`."""
        self.path = path
        self._times = times
        self._prompts = prompts
        self._outputs = outputs

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file line by line. Raises InputError, which names the line, for a line that is no request."""
        times, prompts, outputs = array("d"), array("I"), array("I")
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                for time, prompt, output in _rows(file, path):
                    times.append(time)
                    prompts.append(prompt)
                    outputs.append(output)
        except OSError as error:
            raise InputError(OPTION, f"cannot read {path}: {error.strerror}", "give a CSV file") from None
        if not times:
            raise InputError(OPTION, f"{path} holds no requests", "give a file with at least one line of data")
        return cls(path, times, prompts, outputs)

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self._times)

    @property
    def times(self) -> Sequence[float]:
        """Arrival of each request in seconds since the first, ascending."""
        return self._times

    def shape(self, index: int, draws: Draws | None = None) -> tuple[int, int]:  # noqa: ARG002  # not random
        """Return (prompt tokens, output tokens) of request `index`; requests repeat after the last."""
        row = index % len(self._prompts)
        return self._prompts[row], self._outputs[row]

    def count_prompts_below(self, tokens: int) -> int:
        """Return the number of prompts shorter than `tokens`."""
        return sum(1 for prompt in self._prompts if prompt < tokens)

    def check_fits(self, max_model_len: int | None) -> None:
        """Raise InputError if a prompt and its output exceed `max_model_len` tokens; None checks nothing."""
        if max_model_len is None:
            return
        too_long = longest = 0
        for prompt, output in zip(self._prompts, self._outputs, strict=True):
            too_long += prompt + output > max_model_len
            longest = max(longest, prompt + output)
        if too_long:
            raise InputError(
                OPTION,
                f"{too_long} of {len(self)} requests of {self.path} need more than the {max_model_len} tokens"
                f" that the server takes (up to {longest})",
                "raise MAX_MODEL_LEN or take those lines out",
            )


def _rows(file: TextIO, path: Path) -> Iterator[tuple[float, int, int]]:
    """Yield (seconds since the first request, prompt tokens, output tokens) of each line."""
    rows = csv.reader(file, strict=True)
    try:
        columns = _find_columns(next(rows, []), path)
        clock = _Clock()
        for row in rows:
            if row:
                time, prompt, output = _fields(row, columns)
                yield clock.seconds(time), _tokens(prompt, _COLUMNS[1]), _tokens(output, _COLUMNS[2])
    except InputError:
        raise
    except UnicodeDecodeError:
        raise InputError(OPTION, f"{path} is not UTF-8 text", "give a CSV file, not compressed") from None
    except (ValueError, csv.Error) as error:
        place = f"{path}, line {rows.line_num}"
        raise InputError(OPTION, f"{place}: {error}", "correct or remove the line") from None


class _Clock:
    """Converts time stamps of one kind to seconds since the first. Raises ValueError."""

    def __init__(self) -> None:
        self._first: datetime | float | None = None
        self._last = 0.0

    def seconds(self, text: str) -> float:
        stamp = _stamp(text)
        if self._first is None:
            self._first = stamp
        if isinstance(stamp, datetime) and isinstance(self._first, datetime):
            seconds = (stamp - self._first).total_seconds()
        elif isinstance(stamp, float) and isinstance(self._first, float):
            seconds = stamp - self._first
        else:
            raise ValueError(f"TIMESTAMP '{text}' is not of the kind of the first one")  # noqa: TRY004  # bad text
        if seconds < self._last:
            raise ValueError(f"TIMESTAMP '{text}' is earlier than the one before; sort the file by TIMESTAMP")
        self._last = seconds
        return seconds


def _stamp(text: str) -> datetime | float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    try:
        stamp = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"TIMESTAMP '{text}' is neither ISO 8601 nor seconds") from None
    return stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)


def _fields(row: list[str], columns: Sequence[int]) -> tuple[str, str, str]:
    if len(row) <= max(columns):
        raise ValueError(f"{len(row)} columns are too few")
    time, prompt, output = (row[column] for column in columns)
    return time, prompt, output


def _tokens(text: str, column: str) -> int:
    try:
        tokens = int(text)
    except ValueError:
        raise ValueError(f"{column} '{text}' is not a whole number") from None
    if not 1 <= tokens <= _MOST_TOKENS:
        raise ValueError(f"{column} {tokens} is out of range (1 to {_MOST_TOKENS})")
    return tokens


def _find_columns(header: list[str], path: Path) -> tuple[int, int, int]:
    names = [name.strip().lower() for name in header]
    missing = [column for column in _COLUMNS if column.lower() not in names]
    if missing:
        raise InputError(
            OPTION,
            f"{path}, line 1: no column {', '.join(missing)} among {', '.join(header) or 'none'}",
            f"name the columns {', '.join(_COLUMNS)}",
        )
    time, prompt, output = (names.index(column.lower()) for column in _COLUMNS)
    return time, prompt, output
