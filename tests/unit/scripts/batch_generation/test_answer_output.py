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


def test_rows_are_added_to_those_of_an_earlier_run(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    for lines in ((1, 2), (3,)):
        sink = AnswerFile(file, "r")
        for line in lines:
            sink.write(row(line))
        sink.flush()
        del sink
    assert [json.loads(line)["line"] for line in file.read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_torn_last_row_is_taken_away(cut: int, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    whole = json.dumps(row(1)) + "\n"
    torn = (json.dumps(row(2)) + "\n")[:cut]
    file.write_text(whole + torn)
    sink = AnswerFile(file, "r")
    assert sink.last == row(1)
    sink.write(row(2))
    sink.flush()
    assert [json.loads(line)["line"] for line in file.read_text().splitlines()] == [1, 2]


def test_a_file_with_nothing_but_a_torn_row_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"line": 1, "pro')
    assert AnswerFile(file, "r").last is None
    assert file.read_text() == ""


def test_the_last_row_is_found_however_long_it_is(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    long = row(2, "x" * 300_000)
    file.write_text(json.dumps(row(1)) + "\n" + json.dumps(long) + "\n")
    assert AnswerFile(file, "r").last == long


def test_rows_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    before = json.dumps(row(1)) + "\n"
    file.write_text(before)
    with pytest.raises(OutputError, match="another model or other sampling"):
        AnswerFile(file, "other")
    assert file.read_text() == before


@pytest.mark.parametrize("notes", ["my notes\n", "my notes", '{"line": 1}\nnotes', json.dumps(row(1)) + "\nnotes"])
def test_a_file_of_something_else_is_left_as_it_is(notes: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text(notes)
    with pytest.raises(OutputError, match="was not written by this job"):
        AnswerFile(file, "r")
    assert file.read_text() == notes


def test_rows_of_other_settings_are_left_with_a_torn_one(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    before = json.dumps(row(1)) + "\n" + '{"line": 2, "pro'
    file.write_text(before)
    with pytest.raises(OutputError, match="another model"):
        AnswerFile(file, "other")
    assert file.read_text() == before


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    first = AnswerFile(tmp_path / "a.jsonl", "r")
    with pytest.raises(OutputError, match="another run"):
        AnswerFile(tmp_path / "a.jsonl", "r")
    del first


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        AnswerFile(tmp_path / "no" / "a.jsonl", "r")


def test_text_is_that_of_the_tutorial_and_leaves_wrong_lines_out() -> None:
    out = io.StringIO()
    sink = PrintedAnswers(out, jsonl=False)
    sink.write({"line": 1, "prompt": "Hello, my name is", "text": " Ann"})
    sink.write({"line": 2, "error": "is empty"})
    assert out.getvalue() == "Prompt: 'Hello, my name is', Generated text: ' Ann'\n"
