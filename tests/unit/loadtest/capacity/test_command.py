from __future__ import annotations

from typing import TYPE_CHECKING

from loadtest.capacity.command import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_unwritable_report_dir_gives_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "capacity.json").mkdir(parents=True)
    for name in ("file", "folder"):
        assert main(["--host", "http://127.0.0.1:1", "--report-dir", str(tmp_path / name)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"--report-dir: cannot write into {tmp_path / name}: ")


def test_failed_start_keeps_last_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("capacity.json", "report.html"):
        (tmp_path / name).write_text("{}")
    assert main(["--host", "http://127.0.0.1:1", "--slo-ttft-ms", "500", "--report-dir", str(tmp_path)]) == 2
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"capacity.json": "{}", "report.html": "{}"}
    shown = "".join(capfd.readouterr())
    assert "does not answer" in shown
    assert "Report: " not in shown
