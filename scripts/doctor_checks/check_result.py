"""One line of the doctor's table."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "FAIL"


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, what is needed, and what to do when the two differ."""

    verdict: str
    what: str
    found: str
    needed: str = ""
    fix: str = ""


def ok(what: str, found: str, needed: str = "") -> Finding:
    """As it should be."""
    return Finding(OK, what, found, needed)


def warn(what: str, found: str, needed: str, fix: str) -> Finding:
    """It runs like this, and a person should know."""
    return Finding(WARN, what, found, needed, fix)


def fail(what: str, found: str, needed: str, fix: str) -> Finding:
    """It cannot work like this."""
    return Finding(FAIL, what, found, needed, fix)
