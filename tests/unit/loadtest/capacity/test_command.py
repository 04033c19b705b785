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


def test_a_search_that_does_not_start_leaves_the_last_one_s_result(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("capacity.json", "report.html"):
        (tmp_path / name).write_text("{}")
    assert main(["--host", "http://127.0.0.1:1", "--slo-ttft-ms", "500", "--report-dir", str(tmp_path)]) == 2
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"capacity.json": "{}", "report.html": "{}"}
    shown = "".join(capfd.readouterr())
    assert "does not answer" in shown
    assert "Report: " not in shown
