"""`python -m delivery [fetch]`: the `model` container's program. Exit code 0 only when the model is complete."""

import argparse
import logging
import os
import signal
import sys
from types import FrameType

from .fetch import fetch
from .settings import DeliveryError, read


def main(arguments: list[str]) -> int:
    """Carry out one command; the exit code."""
    parser = argparse.ArgumentParser(prog="model", description="Brings a model onto the volume.")
    parser.add_argument("command", nargs="?", default="fetch", choices=["fetch"])
    parser.parse_args(arguments)
    logging.basicConfig(format="client: %(message)s", level=logging.WARNING, stream=sys.stdout)
    try:
        fetch(read(os.environ))
    except DeliveryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # Every state on the volume is one that the next run goes on from.
    print("stopped: run this again to go on", file=sys.stderr, flush=True)
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    # As process 1 of a container, the default action of SIGTERM would be to ignore it.
    signal.signal(signal.SIGTERM, _stop)
    code = main(sys.argv[1:])
    sys.stdout.flush()
    # Not sys.exit: it would wait for the client's threads, which may hang with the hub.
    os._exit(code)
