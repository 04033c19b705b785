"""What a search does now: lines for the log, figures for the page and for Prometheus."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loadtest.capacity.statistics.shares import judge_share, normal_quantile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.capacity.answer import SearchAnswer, SearchSettings
    from loadtest.capacity.stage import StagePlan, StageRequest
    from loadtest.capacity.stage_record import StageRecord, UsersRecord

log = logging.getLogger(__name__)

_LINE_EVERY_S = 10.0


@dataclass(slots=True)
class StageProgress:
    """The stage that runs, or the last one."""

    number: int
    purpose: str
    rate: float
    requests: int = 0
    share: float | None = None
    share_low: float = 0.0
    share_high: float = 1.0
    state: str = "running"


@dataclass(slots=True)
class SearchProgress:
    """Kept by the run; read by everybody who shows it."""

    settings: SearchSettings
    budget_s: float
    running: bool = True
    rows: list[StageProgress] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    interval: tuple[float | None, float | None, float | None] = (None, None, None)
    summary: dict[str, Any] | None = None
    _began: float = field(default_factory=time.monotonic)
    _last_line: float = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self._began

    def say(self, line: str) -> None:
        """Log a line, and keep it for those who follow from afar."""
        self.lines.append(line)
        self._last_line = time.monotonic()
        log.info(line)

    def begin(self, plan: StagePlan) -> None:
        """A stage begins."""
        self.rows.append(StageProgress(plan.number, plan.purpose, plan.rate))
        self._last_line = time.monotonic()

    def look(self, plan: StagePlan, requests: Sequence[StageRequest]) -> None:
        """The stage goes on; `requests` are those measured so far."""
        now = self.rows[-1]
        self._measure(now, [request.good for request in requests])
        if time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self.say(f"  {self._stage(now)} of {plan.min_requests} to {plan.max_requests}{self._left()}")

    def end_stage(self, answer: SearchAnswer, record: StageRecord) -> None:
        """The stage has ended."""
        now, verdict = self.rows[-1], answer.stages[-1]
        self._measure(now, [request.good for request in record.result.requests])
        now.share_low, now.share_high = verdict.share_low, verdict.share_high
        now.state = "void" if verdict.void else verdict.decision.value
        self.interval = (answer.low, answer.mid, answer.high)
        self.say(f"{self._stage(now)}: {now.state}{self._known(answer)}{self._left()}")
        for reason in record.result.void:
            self.say(f"  void: {reason}")

    def begin_users(self, number: int, users: int) -> None:
        """A closed loop begins."""
        self.rows.append(StageProgress(number, f"{users} users", 0.0))
        self._last_line = time.monotonic()

    def look_at_users(self, users: int, good: Sequence[bool]) -> None:
        """The closed loop goes on."""
        now = self.rows[-1]
        self._measure(now, good)
        if time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self.say(f"  closed loop of {users} users: {_share(now)}{self._left()}")

    def end_users(self, record: UsersRecord) -> None:
        """The closed loop has ended."""
        now = self.rows[-1]
        now.rate = record.requests_per_s or 0.0
        now.state = "void" if record.void else {True: "met", False: "missed", None: "undecided"}[record.met]
        self.say(f"closed loop of {record.users} users, {now.rate:.2f} requests/s: {_share(now)}: {now.state}")
        for reason in record.void:
            self.say(f"  void: {reason}")

    def end(self, summary: dict[str, Any]) -> None:
        """The search has ended."""
        self.summary = summary
        self.running = False
        rates: Mapping[str, float | None] = summary["capacity"]["requests_per_second"]
        self.interval = (rates["low"], rates["mid"], rates["high"])

    def _measure(self, now: StageProgress, good: Sequence[bool]) -> None:
        now.requests = len(good)
        if good:
            share = judge_share(good, normal_quantile(self.settings.confidence))
            now.share, now.share_low, now.share_high = share.share, share.low, share.high

    @staticmethod
    def _stage(now: StageProgress) -> str:
        return f"stage {now.number} ({now.purpose}) at {now.rate:.2f} requests/s: {_share(now)}"

    @staticmethod
    def _known(answer: SearchAnswer) -> str:
        if answer.low is not None and answer.high is not None:
            return f"; capacity {answer.low:.2f} to {answer.high:.2f} requests/s"
        return f"; capacity at least {answer.low:.2f} requests/s" if answer.low else ""

    def _left(self) -> str:
        left = max(0.0, self.budget_s - self.elapsed_s)
        return f"; {_clock(self.elapsed_s)} gone, at most {_clock(left)} left"


def _share(now: StageProgress) -> str:
    if now.share is None:
        return "no requests measured yet"
    return f"{now.share:.1%} of {now.requests} good ({now.share_low:.1%} to {now.share_high:.1%})"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
