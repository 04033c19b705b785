"""One line of the doctor's table."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "FAIL"


@dataclass(frozen=True)
class CheckResult:
    """What was looked at, what was found, what is needed, and what to do when the two differ."""

    verdict: str
    what: str
    found: str
    needed: str = ""
    fix: str = ""


def ok(what: str, found: str, needed: str = "") -> CheckResult:
    """As it should be."""
    return CheckResult(OK, what, found, needed)


def warn(what: str, found: str, needed: str, fix: str) -> CheckResult:
    """It runs like this, and a person should know."""
    return CheckResult(WARN, what, found, needed, fix)


def fail(what: str, found: str, needed: str, fix: str) -> CheckResult:
    """It cannot work like this."""
    return CheckResult(FAIL, what, found, needed, fix)
