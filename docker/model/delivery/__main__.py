"""`python -m delivery [fetch|verify|list|prune]`: the `model` container's program.

Exit code 0 when the command succeeded, 1 with one line on standard error when not.
"""

import argparse
import io
import logging
import os
import signal
import sys
from types import FrameType
from typing import TextIO

from .settings import DeliveryError, Settings, read, require_key_for_others


def main(arguments: list[str]) -> int:
    """Carry out one command; the exit code."""
    parser = argparse.ArgumentParser(prog="model", description="Brings a model onto the volume and looks after it.")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("fetch", help="make the model of the settings complete (what happens without a command)")
    commands.add_parser("verify", help="read every byte of the model again and compare with the manifest")
    commands.add_parser("list", help="show what is on the volume")
    prune = commands.add_parser("prune", help="delete every model but the one of the settings; asks first")
    prune.add_argument("--yes", action="store_true", help="do not ask")
    chosen = parser.parse_args(arguments)
    try:
        settings = read(os.environ)
        if chosen.command in (None, "fetch"):
            require_key_for_others(os.environ)
        for name in ("MODEL_TOKEN", "MODEL_TOKEN_FILE"):
            os.environ.pop(name, None)  # client libraries get it from us alone
        _hide(settings.token)
        logging.basicConfig(format="client: %(message)s", level=logging.WARNING, stream=sys.stderr)
        _carry_out(chosen, settings)
    except DeliveryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        # The volume or the mount: full, read-only, gone.
        print(f"error: {error.filename or 'volume'}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _carry_out(chosen: argparse.Namespace, settings: Settings) -> None:
    # Imported late: a start with nothing to do should load little.
    if chosen.command in (None, "fetch"):
        from .fetch import fetch  # noqa: PLC0415

        fetch(settings)
        return
    from . import upkeep  # noqa: PLC0415

    match chosen.command:
        case "verify":
            upkeep.verify(settings)
        case "list":
            upkeep.list_models(settings)
        case "prune":
            upkeep.prune(settings, sure=chosen.yes)


class _Redacted(io.TextIOBase):
    """A stream that replaces a secret by `***` in our lines, a client's and tracebacks."""

    def __init__(self, stream: TextIO, secret: str) -> None:
        super().__init__()
        self._stream = stream
        self._secret = secret

    def write(self, text: str) -> int:
        self._stream.write(text.replace(self._secret, "***"))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def _hide(token: str) -> None:
    if token:
        sys.stdout = _Redacted(sys.stdout, token)
        sys.stderr = _Redacted(sys.stderr, token)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # Safe at any moment: the next run continues from every state of the volume.
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"stopped: run this again to go on\n")
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    # As process 1 of a container, the default action of SIGTERM would be to ignore it.
    signal.signal(signal.SIGTERM, _stop)
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: it would wait for the client's threads, which hang when the hub does.
    os._exit(code)
