from pathlib import Path

import pytest

from tests.rig.tiny_model import MODEL_ID, SHARDS, error_of, run_model


@pytest.fixture
def two_revisions(volume_path: Path, address: str) -> Path:
    for revision in ("v2", "master"):
        assert run_model(volume_path, address=address, MODEL_REVISION=revision).returncode == 0
    return volume_path


def test_list_shows_all_revisions(two_revisions: Path) -> None:
    lines = run_model(two_revisions, "list").stdout.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["READY", "READY"]
    [wanted] = [line for line in lines if "<- the settings" in line]
    assert f"{MODEL_ID}@master" in wanted
    assert lines[-1].startswith("2 on the volume")


def test_list_of_an_empty_volume(volume_path: Path) -> None:
    result = run_model(volume_path, "list")
    assert result.returncode == 0
    assert result.stdout.startswith("0 on the volume")


def test_verify_removes_a_flipped_file(two_revisions: Path, address: str) -> None:
    shard = two_revisions / MODEL_ID / SHARDS[1]
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    assert run_model(two_revisions).returncode == 0, "a look at the sizes cannot see it"
    result = run_model(two_revisions, "verify")
    assert error_of(result).startswith(f"error: {MODEL_ID}@master: {SHARDS[1]} changed on the disk")
    assert not (two_revisions / MODEL_ID / "READY").exists()
    assert run_model(two_revisions, address=address).returncode == 0
    assert run_model(two_revisions, "verify").returncode == 0


def test_verify_without_model_names_command(volume_path: Path) -> None:
    result = run_model(volume_path, "verify")
    assert "run `docker compose run --rm model`" in error_of(result)


@pytest.mark.parametrize("answer", ["y\n", "YES\n"])
def test_prune_asks_and_keeps_wanted_model(two_revisions: Path, answer: str) -> None:
    result = run_model(two_revisions, "prune", answer=answer)
    assert result.returncode == 0, result.stdout
    assert "3.2 MB  modelscope" in result.stdout
    assert f"keep {MODEL_ID}@master? [y/N]" in result.stdout
    assert len(list(two_revisions.rglob("READY"))) == 1
    assert run_model(two_revisions, "verify").returncode == 0


@pytest.mark.parametrize("answer", ["\n", "n\n", "maybe\n"])
def test_prune_needs_a_yes(two_revisions: Path, answer: str) -> None:
    result = run_model(two_revisions, "prune", answer=answer)
    assert (result.returncode, result.stdout.endswith("nothing deleted\n")) == (0, True)
    assert len(list(two_revisions.rglob("READY"))) == 2


def test_prune_without_terminal_deletes_nothing(two_revisions: Path) -> None:
    result = run_model(two_revisions, "prune")
    assert "add --yes" in error_of(result)
    assert len(list(two_revisions.rglob("READY"))) == 2


def test_prune_removes_links_and_folders(two_revisions: Path, address: str) -> None:
    other = {"MODEL_SOURCE": "huggingface"}
    assert run_model(two_revisions, address=address, **other).returncode == 0
    assert run_model(two_revisions, "prune", "--yes", MODEL_ID="somebody/else").returncode == 0
    left = sorted(path.relative_to(two_revisions).as_posix() for path in two_revisions.rglob("*"))
    assert left == [".lock"]
