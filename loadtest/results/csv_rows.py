"""One row per request: the raw results, as sent to the master and as stored in `requests.csv`."""

from __future__ import annotations

import csv
import logging
import os
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from loadtest.client.request_record import RequestRecord

log = logging.getLogger(__name__)

# Times in milliseconds, sent_at in Unix seconds; empty if not observed. Columns keep their place: new ones come last.
_FIRST_COLUMNS = (
    *("index", "endpoint", "measured", "good", "outcome", "status", "sent_at"),
    *("schedule_delay_ms", "ttft_ms", "tpot_ms", "e2e_ms", "duration_ms"),
    *("prompt_tokens", "expected_prompt_tokens", "output_tokens", "cached_tokens"),
    *("kernel_stamped", "merged_deltas", "largest_lag_ms", "detail"),
)
_LATER_COLUMNS = ("ttfat_ms", "reasoning_tokens")
COLUMNS = (*_FIRST_COLUMNS, *_LATER_COLUMNS)


def to_row(record: RequestRecord, *, measured: bool, good: bool) -> tuple[Any, ...]:
    """Return the values of COLUMNS, of types that msgpack can carry.

    `measured` is False in warm-up; `good`: the request ended ok and met every limit of the SLO.
    """
    return (
        record.index,
        record.endpoint,
        int(measured),
        int(good),
        record.outcome.value,
        record.status or None,
        round(record.sent_at, 6),
        _milliseconds(record.schedule_delay),
        _milliseconds(record.ttft),
        _milliseconds(record.tpot),
        _milliseconds(record.e2e),
        _milliseconds(record.duration),
        record.prompt_tokens,
        record.expected_prompt_tokens,
        None if record.uncounted else record.output_tokens,
        record.cached_tokens,
        int(record.kernel_stamped),
        record.merged_deltas,
        _milliseconds(max(record.lags, default=None)),
        record.detail,
        _milliseconds(record.ttfat),
        record.reasoning_tokens,
    )


def _with_process(row: Sequence[Any], process: str) -> tuple[Any, ...]:
    """Return a row of the file: the column `process` stands where it was before later columns came."""
    return (*row[: len(_FIRST_COLUMNS)], process, *row[len(_FIRST_COLUMNS) :])


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


class RowSink(Protocol):
    """Receives the rows of a run while it continues."""

    def add(self, process: str, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows of one process."""


class RowFile:
    """`requests.csv`, written during the run. A full disk ends the file, not the run, and sets `problem`."""

    def __init__(self, path: Path) -> None:
        """Create the file, or truncate it. Raises OSError."""
        self._path = path
        self._file: IO[str] = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(_with_process(COLUMNS, "process"))
        self._file.flush()
        self._complete_bytes = self._file.tell()  # size of the complete rows on the disk
        self.problem: str | None = None

    def add(self, process: str, rows: Iterable[Sequence[Any]]) -> None:
        """Append the rows of one process; does nothing once the file is closed."""
        if self._file.closed:
            return
        try:
            self._writer.writerows(_with_process(row, process) for row in rows)
            # Once a second per process: the rows are kept even if this process is killed.
            self._file.flush()
            self._complete_bytes = self._file.tell()
        except OSError as error:
            self._end_file(error)

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as error:
            self._end_file(error)

    def _end_file(self, error: OSError) -> None:
        self.problem = f"requests.csv, and charts made of it, end before the run does: {error.strerror}"
        log.error("%s; all other figures go on", self.problem)
        with suppress(OSError):
            self._file.close()  # tries once more to write the rest
        with suppress(OSError):
            os.truncate(self._path, self._complete_bytes)  # a part of a row could not be parsed


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a `requests.csv`, each a dict from column to text."""
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
