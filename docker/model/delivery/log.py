"""The log: our own lines, and what the hubs' clients say."""

import logging
import sys


def say(line: str) -> None:
    """Print one line now, on the stream of the errors: a log that mixes two streams may show the end first."""
    print(line, file=sys.stderr, flush=True)


def adopt_log(name: str) -> None:
    """Let a client's warnings through in our form, and nothing below them."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.WARNING)


def root_cause(error: BaseException) -> str:
    """The words of the operating system, from under the layers of clients: `Connection refused`."""
    words = ""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            words = link.strerror
        reason = getattr(link, "reason", None)
        link = link.__cause__ or link.__context__ or (reason if isinstance(reason, BaseException) else None)
    return words or type(error).__name__
