from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from batch_generation import batch_progress
from batch_generation.batch_progress import BatchProgress, count_lines

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("text", "lines"), [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2)])
def test_line_count_matches_numbering(text: str, lines: int, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text(text)
    assert count_lines(file) == lines


def test_log_lines_have_share_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(batch_progress.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    watched = BatchProgress(1000, 200, out)
    now[0] += 20
    watched.row({"line": 400, "output_tokens": 50})
    assert out.getvalue() == "generate: line 400 of 1000 (40.0 %)  10.0 prompts/s  2 output tokens/s  1:00 left\n"


def test_wrong_line_is_reported_at_once() -> None:
    out = io.StringIO()
    watched = BatchProgress(None, out=out)
    watched.row({"line": 7, "error": "is not JSON"})
    watched.end()
    first, last = out.getvalue().splitlines()
    assert first == "generate: line 7 is not JSON"
    assert "0 answered, 1 wrong" in last
    assert watched.wrong == 1
