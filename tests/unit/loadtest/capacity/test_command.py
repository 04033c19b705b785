from __future__ import annotations

from typing import TYPE_CHECKING

from loadtest.capacity.command import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_report_dir_that_cannot_be_written_to_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "capacity.json").mkdir(parents=True)
    for name in ("file", "folder"):
        assert main(["--host", "http://127.0.0.1:1", "--report-dir", str(tmp_path / name)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"--report-dir: cannot write into {tmp_path / name}: ")
