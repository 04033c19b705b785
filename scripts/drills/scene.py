"""State and helpers of a running drill: clock, alerts, users, assertions."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import requests
from drills.stack import StackError, wait_for
from drills.users import Asker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drills.stack import RunningStack

LOOK_S = 1.0
T = TypeVar("T")


class DrillError(Exception):
    """A failed assertion; the message has the observation."""


class Skip(Exception):  # noqa: N818  # no error: the stack has nothing to break there
    """The drill has nothing to break here; the message says why."""


@dataclass
class DrillResult:
    """A row of the table; times in seconds from the break, None where there is none."""

    name: str
    verdict: str = "passed"
    user_saw: str = ""
    alert: str = ""
    noticed_s: float | None = None  # first failure for a user
    detected_s: float | None = None  # the alert fires
    recovered_s: float | None = None  # users are served again
    lost: str = ""
    error: str = ""
    took_s: float = 0.0
    notes: list[str] = field(default_factory=list)


class Alerts:
    """Records, in a thread, when each alert began to fire."""

    def __init__(self, stack: RunningStack) -> None:
        """Start polling."""
        self._stack = stack
        self._stop = threading.Event()
        self.fired: dict[str, float] = {}  # name to monotonic seconds
        self._known = self._firing() or {}
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _firing(self) -> dict[tuple[tuple[str, str], ...], float] | None:
        """Value of each firing alert by its labels; None when Prometheus does not answer."""
        with contextlib.suppress(requests.RequestException):
            return {
                tuple(sorted(alert["labels"].items())): float(alert["value"])
                for alert in self._stack.alerts()
                if alert["state"] == "firing"
            }
        return None

    def _look(self) -> None:
        while not self._stop.wait(LOOK_S):
            firing = self._firing()
            if firing is None:
                continue
            for labels, value in firing.items():
                # An alert that fired before counts when its value rises, such as one more restart.
                if labels not in self._known or value > self._known[labels]:
                    self.fired.setdefault(dict(labels)["alertname"], time.monotonic())
            # Replaced, not merged: a resolved alert counts when it fires again.
            self._known = firing

    def stop(self) -> None:
        """Stop polling."""
        self._stop.set()


class Scene:
    """Context of one drill: stack, result, clock."""

    def __init__(self, stack: RunningStack, result: DrillResult, say: Callable[[str], None]) -> None:
        """Prepare one drill; `say` shows progress."""
        self.stack = stack
        self.result = result
        self.say = say
        self.broken_at = 0.0  # monotonic
        self.broken_unix = 0.0
        self.asker: Asker | None = None
        self.alerts: Alerts | None = None

    @contextlib.contextmanager
    def watched(self, *, asking: bool = True) -> Iterator[None]:
        """Record alerts and, with `asking`, a user's requests meanwhile."""
        self.alerts = Alerts(self.stack)
        if asking:
            self.asker = Asker(self.stack)
            asker = self.asker
            begun = time.monotonic()
            self.wait("a first answer", lambda: asker.answered_since(begun), 90)
        try:
            yield
        finally:
            self.alerts.stop()
            if self.asker is not None:
                self.asker.stop()

    def broken(self, what: str) -> None:
        """Start the clock: something is broken now."""
        self.broken_at, self.broken_unix = time.monotonic(), time.time()
        self.say(what)

    def since(self) -> float:
        """Seconds since the break."""
        return time.monotonic() - self.broken_at

    def expect(self, condition: object, otherwise: str) -> None:
        """Fail the drill with `otherwise` unless the condition holds."""
        if not condition:
            raise DrillError(otherwise)

    def wait(self, what: str, probe: Callable[[], T | None], within_s: float) -> T:
        """Return the first true value of `probe`. Raises DrillError when there is none within `within_s` seconds."""
        try:
            return wait_for(what, probe, within_s)
        except StackError as error:
            raise DrillError(str(error)) from None

    def wait_for_alert(self, name: str, within_s: float) -> None:
        """Wait until the alert fires, and record when."""
        self.result.alert = name
        assert self.alerts is not None  # noqa: S101  # for the type checker: only within `watched`
        fired = self.alerts.fired
        at = self.wait(f"alert {name}", lambda: fired.get(name), within_s)
        self.result.detected_s = at - self.broken_at
        self.say(f"alert {name} after {self.result.detected_s:.0f} s")

    def wait_for_answers(self, within_s: float, *, since: float | None = None) -> None:
        """Wait for three answers in a row, and record when users were served again."""
        asker = self.asker
        assert asker is not None  # noqa: S101  # for the type checker: only within `watched`
        begun = self.broken_at if since is None else since
        at = self.wait("users are served again", lambda: asker.answered_since(begun, count=3), within_s)
        self.result.recovered_s = at - self.broken_at
        self.say(f"served again after {self.result.recovered_s:.0f} s")

    def note_users(self) -> None:
        """Record users' outcomes since the break, and the time of the first failure."""
        asker = self.asker
        assert asker is not None  # noqa: S101  # for the type checker: only within `watched`
        bad = [one for one in asker.answers if not one.ok and one.ended_at >= self.broken_at]
        if bad:
            self.result.noticed_s = bad[0].ended_at - self.broken_at
        seen = asker.seen_since(self.broken_at)
        self.result.user_saw = ", ".join(f"{outcome} {count}" for outcome, count in seen.most_common())
