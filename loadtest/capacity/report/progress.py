"""Progress of a search: lines for the log, figures for the web page and for Prometheus."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loadtest.capacity.statistics.shares import judge_share, normal_quantile
from loadtest.report.run_terminal import failure_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.capacity.answer import SearchAnswer, SearchSettings
    from loadtest.capacity.stage import StagePlan, StageRequest
    from loadtest.capacity.stage_record import StageRecord, UsersRecord

log = logging.getLogger(__name__)

_LINE_EVERY_S = 10.0


@dataclass(slots=True)
class StageProgress:
    """The current or last stage."""

    number: int
    purpose: str
    rate: float
    requests: int = 0
    share: float | None = None
    share_low: float = 0.0
    share_high: float = 1.0
    state: str = "running"
    failures: list[str] = field(default_factory=list)  # the most frequent ones


@dataclass(slots=True)
class SearchProgress:
    """Updated by the run; read by the web page, the metrics and the remote CLI."""

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

    def log_line(self, line: str) -> None:
        """Log a line, and keep it for the remote CLI."""
        self.lines.append(line)
        self._last_line = time.monotonic()
        log.info(line)

    def begin_stage(self, plan: StagePlan) -> None:
        """Record the start of a stage."""
        self.rows.append(StageProgress(plan.number, plan.purpose, plan.rate))
        self._last_line = time.monotonic()

    def update_stage(self, plan: StagePlan, requests: Sequence[StageRequest]) -> None:
        """Update the current stage; `requests` are those measured so far."""
        stage = self.rows[-1]
        self._measure(stage, [request.good for request in requests])
        if time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self.log_line(
                f"  {self._stage_text(stage)} of {plan.min_requests} to {plan.max_requests}{self._time_text()}"
            )

    def end_stage(self, answer: SearchAnswer, record: StageRecord) -> None:
        """Record the end of a stage."""
        stage, verdict = self.rows[-1], answer.stages[-1]
        self._measure(stage, [request.good for request in record.result.requests])
        stage.share_low, stage.share_high = verdict.share_low, verdict.share_high
        stage.state = "void" if verdict.void else verdict.decision.value
        self.interval = (answer.low, answer.mid, answer.high)
        self.log_line(f"{self._stage_text(stage)}: {stage.state}{self._capacity_text(answer)}{self._time_text()}")
        for reason in record.result.void:
            self.log_line(f"  void: {reason}")
        stage.failures = [failure_text(dataclasses.asdict(each)) for each in record.failures.most_frequent()]
        for failure in stage.failures:
            self.log_line(f"  failed: {failure}")

    def begin_users(self, number: int, users: int) -> None:
        """Record the start of a closed loop."""
        self.rows.append(StageProgress(number, f"{users} users", 0.0))
        self._last_line = time.monotonic()

    def update_users(self, users: int, good: Sequence[bool]) -> None:
        """Update the current closed loop."""
        stage = self.rows[-1]
        self._measure(stage, good)
        if time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self.log_line(f"  closed loop of {users} users: {_share(stage)}{self._time_text()}")

    def end_users(self, record: UsersRecord) -> None:
        """Record the end of a closed loop."""
        stage = self.rows[-1]
        stage.rate = record.requests_per_s or 0.0
        stage.state = "void" if record.void else {True: "met", False: "missed", None: "undecided"}[record.met]
        self.log_line(
            f"closed loop of {record.users} users, {stage.rate:.2f} requests/s: {_share(stage)}: {stage.state}"
        )
        for reason in record.void:
            self.log_line(f"  void: {reason}")

    def end(self, summary: dict[str, Any]) -> None:
        """Record the end of the search."""
        self.summary = summary
        self.running = False
        rates: Mapping[str, float | None] = summary["capacity"]["requests_per_second"]
        self.interval = (rates["low"], rates["mid"], rates["high"])

    def _measure(self, stage: StageProgress, good: Sequence[bool]) -> None:
        stage.requests = len(good)
        if good:
            share = judge_share(good, normal_quantile(self.settings.confidence))
            stage.share, stage.share_low, stage.share_high = share.share, share.low, share.high

    @staticmethod
    def _stage_text(stage: StageProgress) -> str:
        return f"stage {stage.number} ({stage.purpose}) at {stage.rate:.2f} requests/s: {_share(stage)}"

    @staticmethod
    def _capacity_text(answer: SearchAnswer) -> str:
        if answer.low is not None and answer.high is not None:
            return f"; capacity {answer.low:.2f} to {answer.high:.2f} requests/s"
        return f"; capacity at least {answer.low:.2f} requests/s" if answer.low else ""

    def _time_text(self) -> str:
        left = max(0.0, self.budget_s - self.elapsed_s)
        return f"; {_clock(self.elapsed_s)} gone, at most {_clock(left)} left"


def _share(stage: StageProgress) -> str:
    if stage.share is None:
        return "no requests measured yet"
    return f"{stage.share:.1%} of {stage.requests} good ({stage.share_low:.1%} to {stage.share_high:.1%})"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
