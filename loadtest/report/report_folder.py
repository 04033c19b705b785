"""The folder of a run's report."""

from __future__ import annotations

import errno
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtest.capacity.report.capacity_page import Latencies, render_capacity
from loadtest.input_error import InputError
from loadtest.report.run_page import render_page
from loadtest.results.csv_rows import RowFile, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadtest.results.run_results import RunResults

log = logging.getLogger(__name__)

_ROWS, _RUN, _SEARCH, _PAGE = _FILES = ("requests.csv", "summary.json", "capacity.json", "report.html")


class ReportFolder:
    """`requests.csv` grows while the run goes on; `summary.json` and `report.html` come when it has ended."""

    def __init__(self, path: Path) -> None:
        """Make the folder and start `requests.csv`. Raises InputError."""
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.rows = RowFile(path / f"{_ROWS}.partial")
        except OSError as error:
            raise _unusable(path, error) from None

    @staticmethod
    def check(path: Path) -> None:
        """Make sure that `path` is a folder that can be written to, and each file in it. Raises InputError."""
        probe = path / ".writable"
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
            for name in _FILES:
                if (path / name).is_dir():
                    raise IsADirectoryError(errno.EISDIR, f"{name} is a folder")
        except OSError as error:
            raise _unusable(path, error) from None

    def close_rows(self) -> tuple[str, ...]:
        """Take no more rows; returns what the report's reader must know of them."""
        self.rows.close()
        return (self.rows.problem,) if self.rows.problem else ()

    def write(self, summary: Mapping[str, Any], results: RunResults) -> bool:
        """Finish all three files; each appears whole or not at all. False, with a line in the log, if one does not."""
        return self._finish(_RUN, summary, lambda rows: render_page(summary, results, read_rows(rows)))

    def write_capacity(self, summary: Mapping[str, Any], latencies: Latencies) -> bool:
        """Finish the files of a search: `capacity.json` in the place of `summary.json`."""
        return self._finish(_SEARCH, summary, lambda _: render_capacity(summary, latencies))

    def _finish(self, name: str, summary: Mapping[str, Any], page: Callable[[Path], str]) -> bool:
        rows = self.path / _ROWS
        self.rows.close()
        try:
            (self.path / f"{_ROWS}.partial").replace(rows)
            _put(self.path / name, json.dumps(summary, indent=2, allow_nan=False) + "\n")
            _put(self.path / _PAGE, page(rows))
        except OSError as error:
            problem = error.strerror
        else:
            log.info("Report: %s", self.path)
            return True
        log.error("--report-dir: cannot write all of the report into %s: %s; make room", self.path, problem)
        return False

    def discard(self) -> None:
        """Take away what a run that did not come about has begun."""
        self.rows.close()
        (self.path / f"{_ROWS}.partial").unlink(missing_ok=True)
        with suppress(OSError):  # not empty: it is not this run's alone
            self.path.rmdir()


def write_page(path: Path, page: str) -> None:
    """Write the page that `--report` names; it appears whole or not at all. Raises InputError."""
    try:
        _put(path, page)
    except OSError as error:
        raise InputError("--report", f"cannot write {path}: {error.strerror}", "give another file") from None


def _put(path: Path, text: str) -> None:
    partial = Path(f"{path}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError("--report-dir", f"cannot write into {path}: {error.strerror}", "give a folder that is yours")
