import json
from pathlib import Path

import pytest
from delivery import checks
from delivery.listing import RemoteFile
from delivery.model_files import ModelFiles
from delivery.settings import read

from tests.rig.tiny_model import MODEL_ID, SHARDS, write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "m")
    return tmp_path / "m"


def problems(folder: Path, **environ: str) -> list[str]:
    return checks.problems(ModelFiles.in_folder(folder), read({"MODEL_ID": MODEL_ID} | environ))


def test_complete_model_has_no_problems(folder: Path) -> None:
    assert problems(folder) == []


def test_missing_or_resized_file_is_named(folder: Path) -> None:
    files = [RemoteFile("config.json", 2), RemoteFile("more.json", 5)]
    (folder / "config.json").write_text("{} ")
    assert checks.unlike_listing(folder, files) == {
        "config.json": "has 3 bytes, the source lists 2",
        "more.json": "is missing",
    }


def test_shard_missing_from_disk_is_named(folder: Path) -> None:
    (folder / SHARDS[1]).unlink()
    [problem] = problems(folder)
    assert problem.startswith(f"model.safetensors.index.json names {SHARDS[1]}")


def test_index_of_skipped_weights_is_ignored(folder: Path) -> None:
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"t": "pytorch_model-1.bin"}}))
    assert problems(folder) == []


def test_unreadable_index_is_a_problem(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(["no index"]))
    assert problems(folder) == ["model.safetensors.index.json cannot be read"]


def test_partial_download_is_a_problem(folder: Path) -> None:
    (folder / "config.json.incomplete").touch()
    assert problems(folder) == ["config.json.incomplete is half a download"]


def test_truncated_shard_is_detected(folder: Path) -> None:
    shard = folder / SHARDS[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    [problem] = problems(folder)
    assert problem.startswith(f"{SHARDS[0]} has {shard.stat().st_size} bytes")


@pytest.mark.parametrize("content", [b"", b"\x10", b"<html>not found</html>", b"\x02\0\0\0\0\0\0\0[]"])
def test_invalid_shard_is_detected(folder: Path, content: bytes) -> None:
    (folder / SHARDS[0]).write_bytes(content)
    assert any(problem.startswith(SHARDS[0]) for problem in problems(folder))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", "it has no config.json"),
        ("tokenizer.json", "there is no tokenizer"),
        ("chat_template.jinja", "there is no chat template: set CHAT_TEMPLATE"),
    ],
)
def test_missing_engine_file_is_a_problem(folder: Path, name: str, words: str) -> None:
    (folder / name).unlink()
    [problem] = problems(folder)
    assert problem.startswith(words)


def test_config_must_be_valid_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')
    assert problems(folder) == ["config.json is no JSON object"]


def test_chat_template_sources(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert problems(folder, CHAT_TEMPLATE="chatml") == []
    assert problems(folder, MODEL_ID="owner/base-model") == []
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert problems(folder) == []


def test_missing_weights_are_a_problem(folder: Path) -> None:
    for name in (*SHARDS, "model.safetensors.index.json"):
        (folder / name).unlink()
    assert any("no weights that vLLM loads" in problem for problem in problems(folder))
