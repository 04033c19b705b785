"""Rows of trace files as their publishers write them: CSV with a header, or one JSON object a line."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from loadtest.input_error import InputError

OPTION = "--trace"

# Names of the three columns, in lower case: those of Azure, BurstGPT, Mooncake and Qwen, Vidur, and plain ones.
_NAMES = {
    "TIMESTAMP": ("timestamp", "timestamp_ms", "timestamp (ms)", "arrived_at", "arrival_time", "arrival_timestamp"),
    "ContextTokens": ("contexttokens", "request tokens", "input_length", "num_prefill_tokens", "input_tokens"),
    "GeneratedTokens": ("generatedtokens", "response tokens", "output_length", "num_decode_tokens", "output_tokens"),
}
_MOST_TOKENS = 100_000_000
_LONGEST_LINE = 1 << 24


class Row(NamedTuple):
    """One request: its time since the first row in the unit of the file, its tokens, and ids of its prompt's blocks."""

    time: float
    prompt: int
    output: int
    hash_ids: Sequence[Any] = ()


class Columns(NamedTuple):
    """Names of the columns in the file, in the order time stamp, prompt tokens, output tokens."""

    names: tuple[str, str, str]
    json: bool

    @property
    def unit(self) -> str:
        """Unit of time stamps that are numbers, "" if the names do not say it."""
        stamp, prompt, _ = (name.strip().lower() for name in self.names)
        if "ms" in stamp.replace("(", "_").replace(")", "_").replace(" ", "_").split("_"):
            return "ms"
        return "s" if prompt in {"request tokens", "num_prefill_tokens"} else ""  # BurstGPT, Vidur


class Clock:
    """Time since the first time stamp: in seconds, or in the unit of the file where stamps are numbers."""

    def __init__(self) -> None:
        """Start without a stamp."""
        self.first: datetime | float | None = None
        self._last = 0.0

    def read(self, column: str, value: Any) -> float:
        """Raise ValueError for no stamp, one of another kind than the first, or one earlier than the last."""
        stamp = _stamp(column, value)
        if self.first is None:
            self.first = stamp
        if isinstance(stamp, datetime) and isinstance(self.first, datetime):
            time = (stamp - self.first).total_seconds()
        elif isinstance(stamp, float) and isinstance(self.first, float):
            time = stamp - self.first
        else:
            raise ValueError(f"{column} '{value}' is not of the kind of the first one")  # noqa: TRY004  # bad text
        if not time >= self._last:
            raise ValueError(f"{column} '{value}' is earlier than the one before; sort the file by {column}")
        if math.isinf(time):
            raise ValueError(f"{column} '{value}' is too far from the first one")
        self._last = time
        return time


def read_rows(file: TextIO, path: Path, clock: Clock) -> tuple[Columns, Iterator[Row]]:
    """Return the columns, and the rows in the order of the file, with times by `clock`.

    Raises InputError, also while the rows are read, which names the line.
    """
    try:
        start = file.read(4096).lstrip()[:1]
        file.seek(0)
    except UnicodeDecodeError:
        raise _not_text(path) from None
    return _read_json(file, path, clock) if start == "{" else _read_csv(file, path, clock)


def _read_csv(file: TextIO, path: Path, clock: Clock) -> tuple[Columns, Iterator[Row]]:
    lines = csv.reader(file, strict=True)
    try:
        header = next(lines, [])
    except UnicodeDecodeError:
        raise _not_text(path) from None
    except csv.Error as error:
        raise _bad_line(path, lines.line_num, error) from None
    columns, places = _find_columns(header, path, json=False)

    def rows() -> Iterator[Row]:
        try:
            for line in lines:
                if line:
                    yield _row(clock, columns.names, _values(line, places))
        except UnicodeDecodeError:
            raise _not_text(path) from None
        except (ValueError, csv.Error) as error:
            raise _bad_line(path, lines.line_num, error) from None

    return columns, rows()


def _values(line: list[str], places: Sequence[int]) -> list[str]:
    if len(line) <= max(places):
        raise ValueError(f"{len(line)} columns are too few")
    return [line[place] for place in places]


def _read_json(file: TextIO, path: Path, clock: Clock) -> tuple[Columns, Iterator[Row]]:
    objects = _json_objects(file, path)
    first = next(objects)  # there is one: the file starts with it
    columns, _ = _find_columns(list(first[1]), path, json=True)

    def rows() -> Iterator[Row]:
        for number, fields in chain([first], objects):
            try:
                yield _row(clock, columns.names, _fields(fields, columns.names), _hash_ids(fields))
            except ValueError as error:
                raise _bad_line(path, number, error) from None

    return columns, rows()


def _json_objects(file: TextIO, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (line number, object)."""
    number = 0
    try:
        while line := file.readline(_LONGEST_LINE):
            number += 1
            if line.strip():
                yield number, _json_object(line)
    except UnicodeDecodeError:
        raise _not_text(path) from None
    except (ValueError, RecursionError) as error:
        raise _bad_line(path, number, str(error).partition("\n")[0]) from None


def _json_object(line: str) -> Mapping[str, Any]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")  # noqa: TRY004  # a bad line, as any other
    return found


def _fields(fields: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    missing = [name for name in names if name not in fields]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    return [fields[name] for name in names]


def _hash_ids(fields: Mapping[str, Any]) -> Sequence[Any]:
    ids = fields.get("hash_ids") or ()
    if not isinstance(ids, (list, tuple)) or not all(isinstance(each, (int, str)) for each in ids):
        raise ValueError("hash_ids are no list of numbers or texts")
    return ids


def _row(clock: Clock, names: tuple[str, str, str], values: Sequence[Any], hash_ids: Sequence[Any] = ()) -> Row:
    return Row(clock.read(names[0], values[0]), _tokens(names[1], values[1]), _tokens(names[2], values[2]), hash_ids)


def _stamp(column: str, value: Any) -> datetime | float:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise ValueError(f"{column} is neither ISO 8601 nor a number")  # noqa: TRY004  # bad text
    try:
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if math.isfinite(number):
        return number
    try:
        stamp = datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise ValueError(f"{column} '{value}' is neither ISO 8601 nor seconds") from None
    return stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)


def _tokens(column: str, value: Any) -> int:
    try:
        tokens = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        tokens = math.nan
    if not tokens.is_integer():  # pandas writes 18.0
        raise ValueError(f"{column} '{value}' is not a whole number")
    if not 0 <= tokens <= _MOST_TOKENS:
        raise ValueError(f"{column} {tokens:.0f} is out of range (0 to {_MOST_TOKENS})")
    return int(tokens)


def _find_columns(header: list[str], path: Path, *, json: bool) -> tuple[Columns, tuple[int, int, int]]:
    names = [name.strip().lower() for name in header]
    places = {
        column: next((names.index(name) for name in known if name in names), None) for column, known in _NAMES.items()
    }
    missing = [column for column, place in places.items() if place is None]
    if missing:
        raise InputError(
            OPTION,
            f"{path}, line 1: no column {', '.join(missing)} among {', '.join(header)[:200] or 'none'}",
            f"name the columns {', '.join(_NAMES)}, or as in BurstGPT's or Mooncake's traces",
        )
    time, prompt, output = (place for place in places.values() if place is not None)
    return Columns((header[time], header[prompt], header[output]), json), (time, prompt, output)


def _bad_line(path: Path, number: int, problem: object) -> InputError:
    return InputError(OPTION, f"{path}, line {number}: {problem}", "correct or remove the line")


def _not_text(path: Path) -> InputError:
    return InputError(OPTION, f"{path} is not UTF-8 text", "give a CSV or JSONL file, not compressed")
