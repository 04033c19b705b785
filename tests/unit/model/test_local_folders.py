"""Folders and archives as users have them: the model in them is found, or refused before the copy with the cause."""

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from delivery import checks, volume
from delivery.listing import select
from delivery.settings import DeliveryError, read
from delivery.sources import holders
from delivery.sources.local import Local

from tests.rig.tiny_model import MODEL_ID, error_of, run_model, write_model

COMMIT = "c1899de289a04d12100db370d81485cdf75e47ca"
OTHER = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    write_model(folder)
    return folder


def seen(path: Path, **environ: str) -> list[str]:
    """Return the paths that would be copied. Raises DeliveryError as a delivery does before the copy."""
    settings = read({"MODEL_SOURCE": "local", "MODEL_ID": MODEL_ID, "MODEL_LOCAL_PATH": str(path)} | environ)
    source = Local(settings)
    wanted = select(source.listing(), settings.allow, settings.ignore)
    with source.look(wanted.files) as files:
        if found := checks.problems(files, settings):
            raise DeliveryError("; ".join(found))
    return sorted(file.path for file in wanted.files)


def cause(path: Path, **environ: str) -> str:
    with pytest.raises(DeliveryError) as error:
        seen(path, **environ)
    return str(error.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def hub_cache(root: Path, model: Path, *commits: str) -> Path:
    """Lay out a repository of Hugging Face's cache: snapshots are links to blobs."""
    repository = root / "models--owner--tiny-chat"
    (repository / "refs").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / ".no_exist").mkdir()
    for path in model.iterdir():
        (repository / "blobs" / f"{path.name}-blob").write_bytes(path.read_bytes())
    for commit in commits:
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for path in model.iterdir():
            (snapshot / path.name).symlink_to(f"../../blobs/{path.name}-blob")
    (repository / "refs/main").write_text(commits[0])
    return repository


def test_repository_of_the_cache_is_read(tmp_path: Path, model: Path) -> None:
    repository = hub_cache(tmp_path / "hub", model, COMMIT, OTHER)
    (repository / "snapshots" / OTHER / "more.json").write_text("{}")
    assert seen(repository) == names(model)
    assert seen(repository, MODEL_REVISION=OTHER) == sorted([*names(model), "more.json"])


def test_unknown_snapshot_names_those_there(tmp_path: Path, model: Path) -> None:
    repository = hub_cache(tmp_path / "hub", model, COMMIT, OTHER)
    (repository / "refs/main").unlink()
    assert cause(repository).startswith("MODEL_REVISION: ")
    assert f"{OTHER}, {COMMIT}" in cause(repository, MODEL_REVISION="v9")


def test_cache_of_many_names_the_repository(tmp_path: Path, model: Path) -> None:
    hub_cache(tmp_path / "hub", model, COMMIT)
    assert "there are models in: models--owner--tiny-chat;" in cause(tmp_path / "hub")


def test_snapshot_alone_names_its_repository(tmp_path: Path, model: Path) -> None:
    repository = hub_cache(tmp_path / "hub", model, COMMIT)
    alone = tmp_path / "local"  # as the container sees it: the links lead to nothing
    (repository / "snapshots" / COMMIT).rename(alone)
    assert "MODEL_LOCAL_PATH: chat_template.jinja: a link to ../../blobs/" in cause(alone)
    assert "models--OWNER--NAME" in cause(alone)


def test_broken_link_that_nobody_wants_is_no_fault(model: Path) -> None:
    before = names(model)
    (model / "notes.md").symlink_to("/nowhere/notes.md")
    assert "notes.md: a link to /nowhere/notes.md" in cause(model)
    assert seen(model, MODEL_IGNORE_PATTERNS="*.md") == before


def test_linked_folder_is_followed_once(tmp_path: Path, model: Path) -> None:
    write_model(tmp_path / "elsewhere")
    (model / "more").symlink_to(tmp_path / "elsewhere")
    (model / "loop").symlink_to(model)
    assert "more/config.json" in seen(model)
    assert not [path for path in seen(model) if path.startswith("loop")]


def test_what_is_no_part_of_the_model_stays(model: Path) -> None:
    expected = names(model)
    for name in (
        *(".git/lfs/objects/aa/bb", ".cache/huggingface/download/x.1f.incomplete", "._____temp/model.safetensors"),
        *(".msc", "model.safetensors.index.json.part", "lost+found/x", "hOmyEDy1.fd0d3b.incomplete", "x.tmp"),
    ):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(b"half")
    assert seen(model) == expected


@pytest.mark.parametrize("ending", [".incomplete", ".part", ".crdownload", ".aria2"])
def test_half_a_file_is_named(model: Path, ending: str) -> None:
    shard = "model-00001-of-00002.safetensors"
    if ending == ".aria2":  # lies beside the file, which has its full size
        (model / f"{shard}{ending}").write_bytes(b"x")
    else:
        (model / shard).rename(model / f"{shard}{ending}")
    assert cause(model).startswith(f"MODEL_LOCAL_PATH: {shard}: half a download ({shard}{ending})")


def test_file_that_may_not_be_read_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: not str(path).endswith("config.json"))
    assert cause(model).startswith("MODEL_LOCAL_PATH: config.json: user ")
    assert "chmod -R a+rX" in cause(model)


@pytest.mark.parametrize("closed", ["", "part"])
def test_folder_that_may_not_be_read_is_no_empty_one(model: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    (model / "part").mkdir()
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path) == model / closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(holders.os, "scandir", refusing)
    assert "may not read it" in cause(model)
    assert "MODEL_LOCAL_PATH" in cause(model)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"GGUF" + bytes(20), "is a GGUF file"),
        (b"\x02" + bytes(7) + b"{}", "is one file of weights: give the folder"),
        (b"\x28\xb5\x2f\xfd" + bytes(20), "is packed with zstd: unpack it"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(20), "is packed with 7-Zip: unpack it"),
        (b"text", "is no folder, tar or zip archive"),
    ],
)
def test_single_file_is_called_by_its_kind(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "file").write_bytes(content)
    assert cause(tmp_path / "file").startswith(f"MODEL_LOCAL_PATH: {tmp_path}/file {words}")


def test_unset_path_is_called_empty() -> None:
    assert cause(Path("/dev/null")).startswith("MODEL_LOCAL_PATH is empty")


def test_tar_of_the_cache_is_read(tmp_path: Path, model: Path) -> None:
    repository = hub_cache(tmp_path / "hub", model, COMMIT)
    with tarfile.open(tmp_path / "m.tar", "w") as tar:
        tar.add(repository, repository.name)
    assert seen(tmp_path / "m.tar") == names(model)


def test_tar_with_links_out_is_refused(tmp_path: Path, model: Path) -> None:
    (model / "more.json").symlink_to("/elsewhere/more.json")
    with tarfile.open(tmp_path / "m.tar", "w") as tar:
        tar.add(model, "mine")
    assert "more.json: a link to /elsewhere/more.json, which is not in the archive" in cause(tmp_path / "m.tar")


@pytest.mark.parametrize("maker", ["macos", "windows"])
def test_zip_of_other_systems_is_read(tmp_path: Path, model: Path, maker: str) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as bundle:
        for path in model.iterdir():
            if maker == "macos":
                bundle.write(path, f"mine/{path.name}")
                bundle.writestr(f"__MACOSX/mine/._{path.name}", "x")
            else:
                info = zipfile.ZipInfo(f"mine\\{path.name}")
                info.create_system = 0
                bundle.writestr(info, path.read_bytes())
    assert seen(tmp_path / "m.zip") == names(model)


def test_encrypted_zip_is_refused(tmp_path: Path, model: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as bundle:
        bundle.write(model / "config.json", "config.json")
    data = bytearray(packed.getvalue())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # its flag in the central directory
    (tmp_path / "m.zip").write_bytes(data)
    assert "config.json: encrypted" in cause(tmp_path / "m.zip")


def test_cut_shard_is_refused_before_the_copy(tmp_path: Path, model: Path) -> None:
    os.truncate(model / "model-00001-of-00002.safetensors", 1000)
    result = run_model(tmp_path / "volume", MODEL_SOURCE="local", MODEL_LOCAL_PATH=str(model))
    assert error_of(result).startswith(f"error: MODEL_LOCAL_PATH: {MODEL_ID}@local cannot be served: model-00001")
    assert not (tmp_path / "volume" / volume.STORE).exists()


@pytest.mark.parametrize("place", [MODEL_ID, f"{MODEL_ID.split('/', maxsplit=1)[0]}"])
def test_taken_place_is_refused_before_the_copy(tmp_path: Path, model: Path, place: str) -> None:
    taken = tmp_path / "volume" / place
    if place == MODEL_ID:
        taken.mkdir(parents=True)
    else:
        taken.parent.mkdir()
        taken.touch()
    result = run_model(tmp_path / "volume", MODEL_SOURCE="local", MODEL_LOCAL_PATH=str(model))
    assert error_of(result).startswith(f"error: MODEL_ID: {taken} ")
    assert not (tmp_path / "volume" / volume.STORE).exists()
