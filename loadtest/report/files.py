"""The folder of a run's report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from loadtest.capacity.report.page import Latencies, render_capacity
from loadtest.report.page import render_page
from loadtest.rows import RowFile, read_rows
from loadtest.workload import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from loadtest.results import Results

_ROWS = "requests.csv"


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
        """Make sure that `path` is a folder that can be written to. Raises InputError."""
        probe = path / ".writable"
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise _unusable(path, error) from None

    def write(self, summary: Mapping[str, Any], results: Results) -> None:
        """Finish all three files; each appears whole or not at all."""
        results.close_rows()
        rows = self.path / _ROWS
        (self.path / f"{_ROWS}.partial").replace(rows)
        self._put("summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
        self._put("report.html", render_page(summary, results, read_rows(rows)))

    def write_capacity(self, summary: Mapping[str, Any], latencies: Latencies) -> None:
        """Finish the files of a search: `capacity.json` in the place of `summary.json`."""
        self.rows.close()
        (self.path / f"{_ROWS}.partial").replace(self.path / _ROWS)
        self._put("capacity.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
        self._put("report.html", render_capacity(summary, latencies))

    def _put(self, name: str, text: str) -> None:
        partial = self.path / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.path / name)


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError("--report-dir", f"cannot write into {path}: {error.strerror}", "give a folder that is yours")
