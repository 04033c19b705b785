"""Logging: our own lines and the hubs' clients' warnings."""

import logging
import sys


def say(line: str) -> None:
    """Print one line to standard error: a log that mixes two streams may show lines out of order."""
    print(line, file=sys.stderr, flush=True)


def adopt_log(name: str) -> None:
    """Show a client's warnings in our format, and nothing below them."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.WARNING)


def root_cause(error: BaseException) -> str:
    """The operating system's message below a client's errors, such as `Connection refused`."""
    text = ""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            text = link.strerror
        reason = getattr(link, "reason", None)
        link = link.__cause__ or link.__context__ or (reason if isinstance(reason, BaseException) else None)
    return text or type(error).__name__
