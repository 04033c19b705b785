"""Starts the hub: `python -m airgap_hub`. Settings come from the environment.

HUB_ROOT   the folder of models (default /hub)
HUB_PORT   the port to listen on (default 8080)
HUB_TOKEN  when set, the token that every request must send, as for a gated model
HUB_FAULTS 1 lets clients set faults by POST /faults: for tests only
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from .faults import FaultBook
from .library import Library
from .server import HubServer


def main() -> int:
    """Serve until stopped; exit code 1 for wrong settings."""
    root = Path(os.environ.get("HUB_ROOT", "/hub"))
    port = os.environ.get("HUB_PORT", "8080")
    if not root.is_dir():
        print(f"hub: HUB_ROOT: {root} is no folder: mount your models there", file=sys.stderr)
        return 1
    if not port.isdecimal() or int(port) > 65535:
        print(f"hub: HUB_PORT: {port!r} is no port number: use 8080", file=sys.stderr)
        return 1
    library = Library(root)
    for model_id in library.model_ids():
        # Computes every digest now, so that no client waits for one.
        size = sum(file.size for file in library.snapshot(model_id, library.revisions(model_id)[0]).files)
        print(f"hub: {model_id}: {', '.join(library.revisions(model_id))}, {size / 1e6:.1f} MB", flush=True)
    faults = FaultBook() if os.environ.get("HUB_FAULTS") == "1" else None
    # All interfaces of its own container: only the compose network reaches it.
    address = ("0.0.0.0", int(port))  # noqa: S104
    # As process 1 of a container, the default action of SIGTERM would be to ignore it.
    signal.signal(signal.SIGTERM, _stop)
    with HubServer(address, library, token=os.environ.get("HUB_TOKEN", ""), faults=faults) as server:
        print(f"hub: listening on port {server.server_port}", flush=True)
        server.serve_forever()
    return 0


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
