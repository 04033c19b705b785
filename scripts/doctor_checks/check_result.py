"""One line of the doctor's table."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "FAIL"


@dataclass(frozen=True)
class CheckResult:
    """Subject, finding, requirement, and the fix when the two differ."""

    verdict: str
    what: str
    found: str
    needed: str = ""
    fix: str = ""


def ok(what: str, found: str, needed: str = "") -> CheckResult:
    """Result of a passed check."""
    return CheckResult(OK, what, found, needed)


def warn(what: str, found: str, needed: str, fix: str) -> CheckResult:
    """Result that does not prevent running, but deserves attention."""
    return CheckResult(WARN, what, found, needed, fix)


def fail(what: str, found: str, needed: str, fix: str) -> CheckResult:
    """Result that prevents running."""
    return CheckResult(FAIL, what, found, needed, fix)
