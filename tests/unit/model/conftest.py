from collections.abc import Iterator
from pathlib import Path

import pytest
from airgap_hub.server import HubServer

from tests.rig.running_hub import running_hub
from tests.rig.tiny_model import MODEL_ID, write_model


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A hub's folder with one model in two revisions."""
    root = tmp_path / "hub"
    write_model(root / MODEL_ID)
    write_model(root / f"{MODEL_ID}@v2", seed=2)
    return root


@pytest.fixture
def hub(models: Path) -> Iterator[HubServer]:
    with running_hub(models) as server:
        yield server


@pytest.fixture
def address(hub: HubServer) -> str:
    return f"http://127.0.0.1:{hub.server_port}"


@pytest.fixture
def volume_path(tmp_path: Path) -> Path:
    return tmp_path / "volume"
