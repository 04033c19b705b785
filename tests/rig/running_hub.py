"""The airgap hub's server on loopback, for tests without containers."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airgap_hub.faults import FaultBook
from airgap_hub.library import Library
from airgap_hub.server import HubServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def running_hub(root: Path) -> Iterator[HubServer]:
    """Serve the models in `root`, with faults that the test can set."""
    server = HubServer(("127.0.0.1", 0), Library(root), faults=FaultBook())
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
