"""The real clients against the airgap hub on loopback, with a tiny model."""

import json
import os
import shutil
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from airgap_hub.server import HubServer

from tests.rig.tiny_model import MODEL_ID, SHARDS, error_of, run_model, write_model

HUBS = ("modelscope", "huggingface")


def served(hub: HubServer) -> list[dict[str, Any]]:
    assert hub.faults is not None
    requests: list[dict[str, Any]] = hub.faults.state()["requests"]
    return requests


def order(hub: HubServer, *faults: dict[str, Any]) -> None:
    assert hub.faults is not None
    hub.faults.replace(list(faults))


def refusal(result: CompletedProcess[str], volume: Path) -> str:
    """Error line of a failed run, after a check that no complete model is there."""
    assert not list(volume.rglob("READY"))
    assert not (volume / MODEL_ID).exists()
    return error_of(result)


@pytest.mark.parametrize("source", HUBS)
def test_fetch_delivers_files_then_ready(volume_path: Path, hub: HubServer, address: str, source: str) -> None:
    result = run_model(volume_path, address=address, MODEL_SOURCE=source)
    assert result.returncode == 0, result.stdout
    folder = volume_path / MODEL_ID
    manifest = json.loads((folder / "manifest.json").read_text())
    revision = {"modelscope": "master", "huggingface": "main"}[source]
    assert (manifest["source"], manifest["id"], manifest["revision"]) == (source, MODEL_ID, revision)
    snapshot = hub.library.snapshot(MODEL_ID)
    assert manifest["files"] == [
        {"path": file.path, "size": file.size, "sha256": file.sha256} for file in snapshot.files
    ]
    for file in snapshot.files:
        assert (folder / file.path).read_bytes() == file.location.read_bytes()
    newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "READY"
    assert "100.0 %" in result.stdout
    assert not (volume_path / ".scratch").exists()


@pytest.mark.parametrize("source", HUBS)
def test_second_run_needs_no_network(volume_path: Path, address: str, source: str) -> None:
    assert run_model(volume_path, address=address, MODEL_SOURCE=source).returncode == 0
    again = run_model(volume_path, MODEL_SOURCE=source)
    assert again.returncode == 0, again.stdout
    assert "on the volume" in again.stdout


def test_new_revision_gets_folder_and_link(volume_path: Path, address: str, models: Path) -> None:
    assert run_model(volume_path, address=address).returncode == 0
    assert run_model(volume_path, address=address, MODEL_REVISION="v2").returncode == 0
    newer = (models / f"{MODEL_ID}@v2" / SHARDS[0]).read_bytes()
    assert (volume_path / MODEL_ID / SHARDS[0]).read_bytes() == newer
    back = run_model(volume_path)  # the first revision is still there: no network needed
    assert back.returncode == 0, back.stdout
    assert (volume_path / MODEL_ID / SHARDS[0]).read_bytes() == (models / MODEL_ID / SHARDS[0]).read_bytes()


def test_failed_revision_keeps_old_model(volume_path: Path, hub: HubServer, address: str, models: Path) -> None:
    assert run_model(volume_path, address=address).returncode == 0
    (models / f"{MODEL_ID}@v2" / SHARDS[1]).unlink()
    assert run_model(volume_path, address=address, MODEL_REVISION="v2").returncode == 1
    assert (volume_path / MODEL_ID / SHARDS[1]).read_bytes() == (models / MODEL_ID / SHARDS[1]).read_bytes()
    assert len(list(volume_path.rglob("READY"))) == 1
    assert hub.library.revisions(MODEL_ID) == ["master", "v2"]


@pytest.mark.parametrize("source", HUBS)
def test_shard_missing_from_hub_is_named(volume_path: Path, address: str, models: Path, source: str) -> None:
    (models / MODEL_ID / SHARDS[1]).unlink()
    result = run_model(volume_path, address=address, MODEL_SOURCE=source)
    error = refusal(result, volume_path)
    assert SHARDS[1] in error


@pytest.mark.parametrize("source", HUBS)
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"MODEL_ID": "owner/nothing"}, ["MODEL_ID", "owner/nothing", "404"]),
        ({"MODEL_REVISION": "v9"}, ["MODEL_REVISION", "v9", "v2"]),
    ],
)
def test_not_found_is_one_line(
    volume_path: Path, address: str, source: str, settings: dict[str, str], words: list[str]
) -> None:
    result = run_model(volume_path, address=address, MODEL_SOURCE=source, **settings)
    error = refusal(result, volume_path)
    for word in words:
        assert word in error


def test_unreachable_hub_names_the_setting(tmp_path: Path) -> None:
    settings = {"modelscope": "MODELSCOPE_ENDPOINT", "huggingface": "HF_ENDPOINT"}
    with ThreadPoolExecutor() as pool:  # each retries for some seconds
        runs = {source: pool.submit(run_model, tmp_path / source, MODEL_SOURCE=source) for source in settings}
    for source, setting in settings.items():
        result = runs[source].result()
        error = refusal(result, tmp_path / source)
        assert error.startswith(f"error: {setting}: cannot reach http://127.0.0.1:1 (Connection refused)")


@pytest.mark.parametrize("source", HUBS)
def test_cut_connection_is_resumed(volume_path: Path, hub: HubServer, address: str, source: str) -> None:
    order(hub, {"match": f"GET .*{SHARDS[0]}", "cut_after": 1_300_000})
    result = run_model(volume_path, address=address, MODEL_SOURCE=source)
    assert result.returncode == 0, result.stdout
    parts = [entry for entry in served(hub) if SHARDS[0] in entry["request"] and entry["request"].startswith("GET")]
    assert [entry["status"] for entry in parts] == [200, 206]
    shard = hub.library.snapshot(MODEL_ID).file(SHARDS[0])
    assert shard is not None
    assert sum(entry["sent"] for entry in parts) <= shard.size + (1 << 20)


@pytest.mark.parametrize("source", HUBS)
def test_flipped_byte_is_fetched_again(volume_path: Path, hub: HubServer, address: str, source: str) -> None:
    order(hub, {"match": f"GET .*{SHARDS[1]}", "corrupt_at": 700_000})
    result = run_model(volume_path, address=address, MODEL_SOURCE=source)
    assert result.returncode == 0, result.stdout
    assert SHARDS[1] in result.stdout
    assert run_model(volume_path, "verify", MODEL_SOURCE=source).returncode == 0


@pytest.mark.parametrize("source", HUBS)
def test_always_wrong_hub_is_refused(volume_path: Path, hub: HubServer, address: str, source: str) -> None:
    order(hub, {"match": f"GET .*{SHARDS[1]}", "corrupt_at": 700_000, "times": 99})
    result = run_model(volume_path, address=address, MODEL_SOURCE=source)
    error = refusal(result, volume_path)
    assert SHARDS[1] in error
    assert "other bytes than it lists" in error


@pytest.mark.parametrize("source", HUBS)
def test_transient_errors_are_retried(volume_path: Path, hub: HubServer, address: str, source: str) -> None:
    order(
        hub,
        {"match": "/repo/files|/tree/", "status": 500},
        {"match": SHARDS[0], "status": 429, "headers": {"Retry-After": "1"}},
        {"match": SHARDS[1], "status": 503},
        {"match": "config.json", "refuse": True},
        {"match": "tokenizer.json", "redirect": True},
        {"match": "index.json", "delay_s": 0.5},
    )
    result = run_model(volume_path, address=address, MODEL_SOURCE=source)
    assert result.returncode == 0, result.stdout
    assert (volume_path / MODEL_ID / "READY").exists()
    assert hub.faults is not None
    assert [fault["times"] for fault in hub.faults.state()["faults"]] == [0] * 6, "every fault must have happened"


@pytest.mark.parametrize("source", HUBS)
@pytest.mark.parametrize("lasting", [(403, "MODEL_TOKEN"), (404, "does not have it (404)")])
def test_permanent_errors_end_at_once(
    volume_path: Path, hub: HubServer, address: str, source: str, lasting: tuple[int, str]
) -> None:
    status, words = lasting
    headers = {"X-Error-Code": "EntryNotFound"} if status == 404 else {}
    order(hub, {"match": SHARDS[0], "status": status, "headers": headers, "times": 99})
    result = run_model(volume_path, address=address, MODEL_SOURCE=source)
    error = refusal(result, volume_path)
    assert SHARDS[0] in error
    assert words in error


@pytest.mark.parametrize("source", HUBS)
def test_trickle_ends_and_keeps_bytes(volume_path: Path, hub: HubServer, address: str, source: str) -> None:
    shard = f"GET .*{SHARDS[0]}"
    order(hub, {"match": shard, "cut_after": 600_000}, {"match": shard, "bytes_per_s": 2000, "times": 99})
    result = run_model(volume_path, address=address, MODEL_SOURCE=source, MODEL_STALL_TIMEOUT_S="2")
    error = refusal(result, volume_path)
    assert "MODEL_STALL_TIMEOUT_S" in error
    assert list(volume_path.rglob(f"{SHARDS[0]}.incomplete"))
    order(hub)
    assert run_model(volume_path, address=address, MODEL_SOURCE=source).returncode == 0
    ranges = [entry["range"] for entry in served(hub) if SHARDS[0] in entry["request"] and entry["status"] == 206]
    assert int(ranges[-1].removeprefix("bytes=").removesuffix("-")) >= 500_000


@pytest.mark.parametrize("source", HUBS)
def test_token_is_used_and_never_written(volume_path: Path, hub: HubServer, address: str, source: str) -> None:
    token = "hf_" + "s3cr3t" * 4
    hub.token = token
    without = run_model(volume_path, address=address, MODEL_SOURCE=source)
    error = refusal(without, volume_path)
    assert "MODEL_TOKEN" in error
    result = run_model(volume_path, address=address, MODEL_SOURCE=source, MODEL_TOKEN=token)
    assert result.returncode == 0, result.stdout
    assert token not in result.stdout
    for path in volume_path.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path


def test_duplicate_weights_are_skipped(volume_path: Path, hub: HubServer, address: str, models: Path) -> None:
    (models / MODEL_ID / "pytorch_model.bin").write_bytes(bytes(1000))
    for source in HUBS:
        order(hub)
        result = run_model(volume_path, address=address, MODEL_SOURCE=source)
        assert result.returncode == 0, result.stdout
        assert f"{MODEL_ID}@{'master' if source == 'modelscope' else 'main'}: 7 of 8 files" in result.stdout
        assert not [entry for entry in served(hub) if "pytorch_model.bin" in entry["request"]]


def test_changed_patterns_fetch_again(volume_path: Path, address: str, models: Path) -> None:
    (models / MODEL_ID / "notes.md").write_text("notes")
    assert run_model(volume_path, address=address).returncode == 0
    result = run_model(volume_path, address=address, MODEL_IGNORE_PATTERNS="*.md")
    assert result.returncode == 0, result.stdout
    assert "; 0.0 MB to fetch" in result.stdout, "what is there needs no space"
    assert not (volume_path / MODEL_ID / "notes.md").exists()
    assert "notes.md" not in (volume_path / MODEL_ID / "manifest.json").read_text()


def archive_of(model: Path, target: Path) -> Path:
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as bundle:
            for path in model.iterdir():
                bundle.write(path, f"top/{path.name}")
    else:
        with tarfile.open(target, "w:gz") as tar:
            tar.add(model, "top")
    return target


@pytest.mark.parametrize("form", ["folder", "m.zip", "m.tar.gz"])
def test_local_model_is_copied(volume_path: Path, tmp_path: Path, form: str) -> None:
    model = tmp_path / "mine"
    write_model(model)
    path = model if form == "folder" else archive_of(model, tmp_path / form)
    result = run_model(volume_path, MODEL_SOURCE="local", MODEL_LOCAL_PATH=str(path))
    assert result.returncode == 0, result.stdout
    for file in model.iterdir():
        assert (volume_path / MODEL_ID / file.name).read_bytes() == file.read_bytes()
    shutil.rmtree(model)
    again = run_model(volume_path, MODEL_SOURCE="local", MODEL_LOCAL_PATH=str(path))
    assert again.returncode == 0, "what was delivered does not need its origin any more"
    assert run_model(volume_path, "verify", MODEL_SOURCE="local").returncode == 0


def test_truncated_local_shard_is_refused(volume_path: Path, tmp_path: Path) -> None:
    model = tmp_path / "mine"
    write_model(model)
    os.truncate(model / SHARDS[0], 1000)
    result = run_model(volume_path, MODEL_SOURCE="local", MODEL_LOCAL_PATH=str(model))
    error = refusal(result, volume_path)
    assert SHARDS[0] in error


@pytest.mark.parametrize("content", [None, "no archive", b"PK\x03\x04broken"])
def test_wrong_local_path_names_setting(volume_path: Path, tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "model"
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        path.write_bytes(content)
    result = run_model(volume_path, MODEL_SOURCE="local", MODEL_LOCAL_PATH=str(path))
    error = refusal(result, volume_path)
    assert error.startswith(f"error: MODEL_LOCAL_PATH: {path}")


def test_archive_stays_inside_the_folder(volume_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("../../evil", "x")
        bundle.writestr("config.json", "{}")
    result = run_model(volume_path, MODEL_SOURCE="local", MODEL_LOCAL_PATH=str(path))
    assert "outside of the model's folder" in refusal(result, volume_path)
    assert not list(tmp_path.rglob("evil"))


def test_printed_token_is_hidden(volume_path: Path, address: str) -> None:
    result = run_model(volume_path, address=address, MODEL_TOKEN="tiny-chat")  # noqa: S106  # the model's own name
    assert result.returncode == 0, result.stdout
    assert "tiny-chat" not in result.stdout
    assert "owner/***@master: READY" in result.stdout
