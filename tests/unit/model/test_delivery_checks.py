import json
from pathlib import Path

import pytest
from delivery import checks
from delivery.listing import RemoteFile
from tiny_model import SHARDS, write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "m")
    return tmp_path / "m"


def listing(folder: Path) -> list[RemoteFile]:
    return [RemoteFile(path.name, path.stat().st_size, None) for path in sorted(folder.iterdir())]


def test_whole_model_has_no_problems(folder: Path) -> None:
    assert checks.problems(folder, listing(folder)) == []


def test_missing_listed_file_is_named(folder: Path) -> None:
    files = listing(folder)
    (folder / "tokenizer.json").unlink()
    assert any("tokenizer.json is missing" in problem for problem in checks.problems(folder, files))


def test_wrong_size_is_named_with_both_sizes(folder: Path) -> None:
    files = listing(folder)
    (folder / "config.json").write_text("{}")
    [problem] = [p for p in checks.problems(folder, files) if p.startswith("config.json has")]
    assert "has 2 bytes" in problem


def test_shard_that_only_the_index_knows_is_named(folder: Path) -> None:
    (folder / SHARDS[1]).unlink()
    problems = checks.problems(folder, listing(folder))
    assert problems == [f"model.safetensors.index.json names {SHARDS[1]}, which is not there"]


def test_unreadable_index_is_a_problem(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(["no index"]))
    assert any("cannot be read" in problem for problem in checks.problems(folder, listing(folder)))


def test_half_a_download_is_a_problem(folder: Path) -> None:
    files = listing(folder)
    (folder / "config.json.incomplete").touch()
    assert checks.problems(folder, files) == ["config.json.incomplete is half a download"]
