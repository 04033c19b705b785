"""Folder of a run's report."""

from __future__ import annotations

import errno
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtest.input_error import InputError
from loadtest.results.csv_rows import RowFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

RUN_SUMMARY, CAPACITY_SUMMARY = "summary.json", "capacity.json"
_ROWS, _PAGE = "requests.csv", "report.html"


class ReportFolder:
    """The files of one run: `requests.csv` grows during it, the summary and `report.html` are written at its end."""

    def __init__(self, path: Path) -> None:
        """Create the folder and start `requests.csv`. Raises InputError."""
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.rows = RowFile(path / f"{_ROWS}.partial")
        except OSError as error:
            raise _not_writable(path, error) from None

    @staticmethod
    def check(path: Path) -> None:
        """Raise InputError unless a report can be written into the folder `path`, created if missing."""
        probe = path / ".writable"
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
            for name in (_ROWS, RUN_SUMMARY, CAPACITY_SUMMARY, _PAGE):
                if (path / name).is_dir():
                    raise IsADirectoryError(errno.EISDIR, f"{name} is a folder")
        except OSError as error:
            raise _not_writable(path, error) from None

    def close_rows(self) -> tuple[str, ...]:
        """Close `requests.csv`; return notes for the report, empty if all rows were written."""
        self.rows.close()
        return (self.rows.problem,) if self.rows.problem else ()

    def write(self, name: str, summary: Mapping[str, Any], render: Callable[[Path], str]) -> bool:
        """Finish `requests.csv`, then write `summary` as the file `name`, and the page.

        `render` returns the page's HTML, given the path of `requests.csv`. Each file appears whole or not at all;
        returns False, with a line in the log, if one does not.
        """
        rows = self.path / _ROWS
        self.rows.close()
        try:
            (self.path / f"{_ROWS}.partial").replace(rows)
            _write_atomically(self.path / name, json.dumps(summary, indent=2, allow_nan=False) + "\n")
            _write_atomically(self.path / _PAGE, render(rows))
        except OSError as error:
            problem = error.strerror
        else:
            log.info("Report: %s", self.path)
            return True
        log.error("--report-dir: cannot write all of the report into %s: %s; make room", self.path, problem)
        return False

    def discard(self) -> None:
        """Remove the files of a run that did not start."""
        self.rows.close()
        (self.path / f"{_ROWS}.partial").unlink(missing_ok=True)
        with suppress(OSError):  # not empty: it holds other files
            self.path.rmdir()


def write_page(path: Path, page: str) -> None:
    """Write the page of option `--report`; it appears whole or not at all. Raises InputError."""
    try:
        _write_atomically(path, page)
    except OSError as error:
        raise InputError("--report", f"cannot write {path}: {error.strerror}", "give another file") from None


def _write_atomically(path: Path, text: str) -> None:
    partial = Path(f"{path}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


def _not_writable(path: Path, error: OSError) -> InputError:
    return InputError("--report-dir", f"cannot write into {path}: {error.strerror}", "give a folder that is yours")
