from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from speed_test.work import Request, Work, WorkError, dataset_requests, random_requests

if TYPE_CHECKING:
    from pathlib import Path


def tokenizer(text: str) -> SimpleNamespace:
    return SimpleNamespace(input_ids=[ord(letter) for letter in text])


def dataset(folder: Path, *turns: tuple[str, ...]) -> Path:
    file = folder / "d.json"
    file.write_text(json.dumps([{"conversations": [{"value": text} for text in turn]} for turn in turns]))
    return file


def test_seed_determines_the_prompts() -> None:
    first, again, other = (random_requests(5, 64, 128, list(range(9)), seed) for seed in (1, 1, 2))
    assert first == again != other
    assert {len(request.prompt) for request in first} == {64}


def test_work_file_round_trip(tmp_path: Path) -> None:
    work = Work("m", "cpu", "float32", "auto", None, 1, 3, 8, ["--x"], [Request([1, 2], 3)])
    work.save(tmp_path / "w.json")
    assert Work.load(tmp_path / "w.json") == work
    assert (work.output_tokens, work.total_tokens) == (3, 5)


def test_unfit_conversations_are_skipped(tmp_path: Path) -> None:
    file = dataset(tmp_path, ("short", "answer"), ("a" * 90, "b" * 90), ("ab", "cd"), ("alone",))
    [request] = dataset_requests(file, 1, (None, None), tokenizer, 100, 1)
    assert (len(request.prompt), request.output_len) == (5, 6)


def test_too_few_conversations_fail(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="has 1 conversations that fit, not --num-prompts 2"):
        dataset_requests(dataset(tmp_path, ("short", "answer")), 2, (None, None), tokenizer, 100, 1)


def test_invalid_dataset_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "d.json"
    file.write_text('[{"no": 1}]')
    with pytest.raises(WorkError, match="must be a ShareGPT file"):
        dataset_requests(file, 1, (None, None), tokenizer, 100, 1)
