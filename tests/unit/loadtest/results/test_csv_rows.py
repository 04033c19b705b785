from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loadtest.results.csv_rows import RowFile, read_rows, to_row
from tests.rig.full_disk import full_disk
from tests.rig.loadtest_objects import record

if TYPE_CHECKING:
    from pathlib import Path

ROW = to_row(record(), measured=True, good=True)


def test_full_disk_ends_rows_at_a_complete_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "requests.csv"
    rows = RowFile(path)
    rows.add("local", [ROW] * 10)
    with full_disk(after=path.stat().st_size + 250):
        rows.add("local", [ROW] * 10)
        rows.add("local", [ROW])
    rows.add("local", [ROW])  # there is room again, but a gap would be worse than an end
    rows.close()
    assert rows.problem is not None
    assert rows.problem.endswith("File too large")
    assert [message for message in caplog.messages if "requests.csv" in message] == [
        f"{rows.problem}; all other figures go on"
    ]
    kept = list(read_rows(path))
    assert len(kept) == 10
    assert all(row["process"] == "local" for row in kept)


def test_disk_full_from_the_start_is_reported(tmp_path: Path) -> None:
    with full_disk(after=0), pytest.raises(OSError, match="File too large"):
        RowFile(tmp_path / "requests.csv")


def test_columns_keep_their_place(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "requests.csv")
    rows.add("worker", [to_row(record(output_tokens=300, detail="why"), measured=True, good=True)])
    rows.close()
    header, row = ((tmp_path / "requests.csv").read_text()).splitlines()
    assert header.split(",")[14:21] == [
        *("output_tokens", "cached_tokens", "kernel_stamped", "merged_deltas", "largest_lag_ms", "detail", "process"),
    ]
    assert (row.split(",")[14], *row.split(",")[19:21]) == ("300", "why", "worker")
    assert next(read_rows(tmp_path / "requests.csv"))["process"] == "worker"
