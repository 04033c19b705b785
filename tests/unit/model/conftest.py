import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

_DOCKER = Path(__file__).parents[3] / "docker"
sys.path[:0] = [str(_DOCKER / "model"), str(_DOCKER / "airgap/hub")]

from airgap_hub.faults import FaultBook  # noqa: E402  # found through the line above
from airgap_hub.library import Library  # noqa: E402
from airgap_hub.server import HubServer  # noqa: E402
from tiny_model import MODEL_ID, write_model  # noqa: E402


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The hub's folder: one model in two revisions."""
    root = tmp_path / "hub"
    write_model(root / MODEL_ID)
    write_model(root / f"{MODEL_ID}@v2", seed=2)
    return root


@pytest.fixture
def hub(models: Path) -> Iterator[HubServer]:
    server = HubServer(("127.0.0.1", 0), Library(models), faults=FaultBook())
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def address(hub: HubServer) -> str:
    return f"http://127.0.0.1:{hub.server_port}"


@pytest.fixture
def volume_path(tmp_path: Path) -> Path:
    return tmp_path / "volume"
