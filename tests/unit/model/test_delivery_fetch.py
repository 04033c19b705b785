"""The real client against the real hub, over loopback, with a small made-up model.

The client reads its settings from the environment when it is imported, so each delivery is a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from airgap_hub.server import HubServer
from tiny_model import MODEL_ID, SHARDS

PACKAGE = Path(__file__).parents[3] / "docker/model"


def run_model(volume: Path, hub: HubServer | None, **settings: str) -> subprocess.CompletedProcess[str]:
    volume.mkdir(exist_ok=True)
    address = f"http://127.0.0.1:{hub.server_port}" if hub else "http://127.0.0.1:1"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PACKAGE),
        "MODEL_VOLUME": str(volume),
        "MODEL_ID": MODEL_ID,
        "MODELSCOPE_ENDPOINT": address,
    }
    command = [sys.executable, "-m", "delivery"]
    return subprocess.run(command, env=environment | settings, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "volume"


def test_delivers_every_file_with_its_digest_and_ready_last(volume: Path, hub: HubServer, models: Path) -> None:
    result = run_model(volume, hub)
    assert result.returncode == 0, result.stderr
    folder = volume / MODEL_ID
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {key: manifest[key] for key in ("source", "id", "revision")} == {
        "source": "modelscope",
        "id": MODEL_ID,
        "revision": "master",
    }
    snapshot = hub.library.snapshot(MODEL_ID)
    expected = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in snapshot.files]
    assert manifest["files"] == expected
    for file in snapshot.files:
        assert (folder / file.path).read_bytes() == file.location.read_bytes()
    newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "READY"
    assert "100.0 %" in result.stdout
    assert len(list(models.glob(f"{MODEL_ID}/*"))) == len(expected)


def test_second_run_asks_nobody(volume: Path, hub: HubServer) -> None:
    assert run_model(volume, hub).returncode == 0
    again = run_model(volume, None)  # nothing listens at that address
    assert again.returncode == 0, again.stderr
    assert "on the volume" in again.stdout


def test_another_revision_gets_its_own_folder_and_the_link(volume: Path, hub: HubServer, models: Path) -> None:
    assert run_model(volume, hub).returncode == 0
    assert run_model(volume, hub, MODEL_REVISION="v2").returncode == 0
    newer = (models / f"{MODEL_ID}@v2" / SHARDS[0]).read_bytes()
    assert (volume / MODEL_ID / SHARDS[0]).read_bytes() == newer
    back = run_model(volume, None)  # the first one is still there: no network needed
    assert back.returncode == 0, back.stderr
    assert (volume / MODEL_ID / SHARDS[0]).read_bytes() == (models / MODEL_ID / SHARDS[0]).read_bytes()


def test_shard_that_the_hub_does_not_have_is_named_and_nothing_is_ready(
    volume: Path, hub: HubServer, models: Path
) -> None:
    (models / MODEL_ID / SHARDS[1]).unlink()
    result = run_model(volume, hub)
    assert result.returncode == 1
    assert SHARDS[1] in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (volume / MODEL_ID).exists()
    assert not list(volume.rglob("READY"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"MODEL_ID": "owner/nothing"}, ["MODEL_ID", "owner/nothing", "404"]),
        ({"MODEL_REVISION": "v9"}, ["MODEL_REVISION", "v9", "master, v2"]),
        ({"MODEL_SOURCE": "ftp"}, ["MODEL_SOURCE", "modelscope"]),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(
    volume: Path, hub: HubServer, settings: dict[str, str], words: list[str]
) -> None:
    result = run_model(volume, hub, **settings)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_unreachable_hub_names_the_setting(volume: Path) -> None:
    result = run_model(volume, None)
    assert result.returncode == 1
    assert result.stderr.startswith("error: MODELSCOPE_ENDPOINT: cannot reach http://127.0.0.1:1 (Connection refused)")
