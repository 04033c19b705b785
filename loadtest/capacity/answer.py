"""What a capacity search is asked for, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence as Items

    from loadtest.capacity.simulation.engine_spec import EngineSpec, SimulatedRequest
    from loadtest.capacity.stage import Decision, StagePlan

# (prompt tokens, output tokens) of many requests: what the workload is in the long run.
Lengths: TypeAlias = "Items[tuple[int, int]]"
Bound = Literal["edge", "floor", "never_met"]
# interval: narrow enough. budget: time is up. max_rate: the limit that was asked for. client: it cannot send more.
# idle_engine: not even requests that come alone meet the SLO. void: stages were void again and again.
Ended = Literal["interval", "budget", "max_rate", "client", "idle_engine", "void"]


@dataclass(frozen=True, slots=True)
class SloLimits:
    """The SLO's limits in seconds; None is no limit."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def met(self, sequence: SimulatedRequest) -> bool:
        """Whether a simulated request that has ended met them."""
        if sequence.rejected:
            return False
        tpot = sequence.tpot
        return (
            (self.ttft_s is None or sequence.ttft <= self.ttft_s)
            and (self.tpot_s is None or tpot is None or tpot <= self.tpot_s)
            and (self.e2e_s is None or sequence.e2e <= self.e2e_s)
        )


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What is searched for, and for how long."""

    objective: float = 0.95  # share of all due requests that must be good
    limits: SloLimits = field(default_factory=SloLimits)  # by which requests are good
    budget_s: float = 900.0
    start_rate: float = 1.0  # requests/s
    max_rate: float = 10_000.0  # requests/s
    relative_interval: float = 0.05  # (high - low) / mid at which the search ends
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class StageVerdict:
    """One stage: the share of its requests that were good, with an interval honest under autocorrelation."""

    plan: StagePlan
    decision: Decision
    requests: int
    share: float
    share_low: float
    share_high: float
    effective_requests: float  # independent requests that would say as much
    unstable: bool  # the backlog grew all the time: missed, however good the window looks
    void: tuple[str, ...]
    client_limited: bool


@dataclass(frozen=True, slots=True)
class Twin:
    """A fitted engine; `error` is the mean absolute logarithm of simulated over measured latencies."""

    spec: EngineSpec
    error: float


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The capacity in requests/s.

    edge: low, mid and high are set. floor: never failed up to `low`, 0 if nothing was met. never_met: all None.
    """

    bound: Bound
    ended: Ended
    low: float | None
    mid: float | None
    high: float | None
    confidence: float
    stages: tuple[StageVerdict, ...]  # in the order in which they ran
    twin: Twin | None = None  # the simulated engine that answers most as this one did

    @property
    def relative_interval(self) -> float | None:
        """(high - low) / mid, for an edge."""
        if self.low is None or self.mid is None or self.high is None:
            return None
        return (self.high - self.low) / self.mid
