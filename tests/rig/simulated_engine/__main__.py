"""`python -m tests.rig.simulated_engine --kind batch_slots --port 8000`; prints its address when it serves."""

import argparse
import dataclasses
import signal

from tests.rig.fault_engine.server import Settings
from tests.rig.simulated_engine.engine_kinds import KINDS
from tests.rig.simulated_engine.server import COUNT_TOKENS, ServedEngine


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.rig.simulated_engine", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--kind", default="batch_slots", choices=KINDS, help="what limits it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slower", type=float, default=1.0, help="every cost times this")
    parser.add_argument("--max-num-queued-reqs", type=int, help="reject what would queue beyond it")
    parser.add_argument("--tokens", default="words", choices=COUNT_TOKENS, help="what of a prompt counts as a token")
    parser.add_argument("--model", default="engine")
    parser.add_argument("--max-model-len", type=int, default=1_000_000)
    given = parser.parse_args()
    spec = KINDS[given.kind].engine.slower(given.slower)
    if given.max_num_queued_reqs is not None:
        spec = dataclasses.replace(spec, max_num_queued_reqs=given.max_num_queued_reqs)
    settings = Settings(models=(given.model,), max_model_len=given.max_model_len)
    engine = ServedEngine(spec, given.seed, settings, given.port, given.host, COUNT_TOKENS[given.tokens])
    signal.signal(signal.SIGTERM, lambda *_: engine.stop())
    signal.signal(signal.SIGINT, lambda *_: engine.stop())
    print(f"http://{given.host}:{engine.port}", flush=True)
    engine.serve()


main()
