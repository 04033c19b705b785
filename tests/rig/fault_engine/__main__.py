"""`python -m tests.rig.fault_engine --port 8000 --ttft-ms 50 --gap-ms 20`; prints its address when it serves."""

import argparse
import signal

from tests.rig.fault_engine.scripts import SCRIPTS
from tests.rig.fault_engine.server import Engine, Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttft-ms", type=float, default=50)
    parser.add_argument("--gap-ms", type=float, default=20)
    parser.add_argument("--role-ms", type=float, help="when the role chunk comes; default: with the first token")
    parser.add_argument("--fault", default="healthy", choices=SCRIPTS)
    parser.add_argument("--model", action="append", help="served model name; default: engine")
    parser.add_argument("--max-model-len", type=int, default=1_000_000)
    parser.add_argument("--api-key", default="")
    given = parser.parse_args()
    settings = Settings(
        ttft=given.ttft_ms / 1000,
        gap=given.gap_ms / 1000,
        role_at=None if given.role_ms is None else given.role_ms / 1000,
        fault=given.fault,
        models=tuple(given.model or ["engine"]),
        max_model_len=given.max_model_len,
        api_key=given.api_key,
    )
    engine = Engine(settings, given.port, given.host)
    signal.signal(signal.SIGTERM, lambda *_: engine.stop())
    signal.signal(signal.SIGINT, lambda *_: engine.stop())
    print(f"http://{given.host}:{engine.port}", flush=True)
    engine.serve()


main()
