from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from batch_generation.answer_output import AnswerFile, OutputError, PrintedAnswers

if TYPE_CHECKING:
    from pathlib import Path


def row(line: int, text: str = "a", run: str = "r") -> dict[str, object]:
    return {"line": line, "prompt": "p", "text": text, "run": run}


def test_rows_are_appended_to_earlier_ones(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    for lines in ((1, 2), (3,)):
        sink = AnswerFile(file, "r")
        for line in lines:
            sink.write(row(line))
        sink.flush()
        del sink
    assert [json.loads(line)["line"] for line in file.read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize("cut", range(1, 30))
def test_partial_last_row_is_removed(cut: int, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    whole = json.dumps(row(1)) + "\n"
    torn = (json.dumps(row(2)) + "\n")[:cut]
    file.write_text(whole + torn)
    sink = AnswerFile(file, "r")
    assert sink.last == row(1)
    sink.write(row(2))
    sink.flush()
    assert [json.loads(line)["line"] for line in file.read_text().splitlines()] == [1, 2]


def test_single_partial_row_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"line": 1, "pro')
    assert AnswerFile(file, "r").last is None
    assert file.read_text() == ""


def test_long_last_row_is_found(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    long = row(2, "x" * 300_000)
    file.write_text(json.dumps(row(1)) + "\n" + json.dumps(long) + "\n")
    assert AnswerFile(file, "r").last == long


def test_rows_of_other_settings_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    before = json.dumps(row(1)) + "\n"
    file.write_text(before)
    with pytest.raises(OutputError, match="another model or other sampling"):
        AnswerFile(file, "other")
    assert file.read_text() == before


@pytest.mark.parametrize("notes", ["my notes\n", "my notes", '{"line": 1}\nnotes', json.dumps(row(1)) + "\nnotes"])
def test_foreign_file_is_not_touched(notes: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text(notes)
    with pytest.raises(OutputError, match="was not written by this job"):
        AnswerFile(file, "r")
    assert file.read_text() == notes


def test_refused_file_keeps_partial_row(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    before = json.dumps(row(1)) + "\n" + '{"line": 2, "pro'
    file.write_text(before)
    with pytest.raises(OutputError, match="another model"):
        AnswerFile(file, "other")
    assert file.read_text() == before


def test_second_writer_is_refused(tmp_path: Path) -> None:
    first = AnswerFile(tmp_path / "a.jsonl", "r")
    with pytest.raises(OutputError, match="another run"):
        AnswerFile(tmp_path / "a.jsonl", "r")
    del first


def test_missing_output_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        AnswerFile(tmp_path / "no" / "a.jsonl", "r")


def test_text_output_skips_wrong_lines() -> None:
    out = io.StringIO()
    sink = PrintedAnswers(out, jsonl=False)
    sink.write({"line": 1, "prompt": "Hello, my name is", "text": " Ann"})
    sink.write({"line": 2, "error": "is empty"})
    assert out.getvalue() == "Prompt: 'Hello, my name is', Generated text: ' Ann'\n"
