"""Settings and answer of a capacity search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence as Items

    from loadtest.capacity.simulation.engine_spec import EngineSpec, SimulatedRequest
    from loadtest.capacity.stage import Decision, StagePlan

# (prompt tokens, output tokens) of many requests: the workload in the long run.
Lengths: TypeAlias = "Items[tuple[int, int]]"
Bound = Literal["edge", "floor", "never_met"]
# interval: narrow enough. budget: time is up. max_rate: the limit is reached. client: the load generator cannot send
# more. idle_engine: even single requests miss the SLO. failed: nearly every request failed. void: several stages in a
# row were void.
Ended = Literal["interval", "budget", "max_rate", "client", "idle_engine", "failed", "void"]


@dataclass(frozen=True, slots=True)
class SloLimits:
    """Limits of the SLO in seconds; None is no limit."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def met(self, request: SimulatedRequest) -> bool:
        """Return whether a simulated request that has ended met all limits."""
        if request.rejected:
            return False
        tpot = request.tpot
        return (
            (self.ttft_s is None or request.ttft <= self.ttft_s)
            and (self.tpot_s is None or tpot is None or tpot <= self.tpot_s)
            and (self.e2e_s is None or request.e2e <= self.e2e_s)
        )


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Objective, limits and stopping rule of a search."""

    objective: float = 0.95  # share of all due requests that must be good
    limits: SloLimits = field(default_factory=SloLimits)  # a request within all of them is good
    budget_s: float = 900.0
    start_rate: float = 1.0  # requests/s
    max_rate: float = 10_000.0  # requests/s
    relative_interval: float = 0.05  # (high - low) / mid at which the search stops
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class StageVerdict:
    """One stage: the share of good requests, with an interval that allows for autocorrelation."""

    plan: StagePlan
    decision: Decision
    requests: int
    share: float
    share_low: float
    share_high: float
    effective_requests: float  # independent requests that would give the same interval
    unstable: bool  # the backlog kept growing: missed, however good the window looks
    void: tuple[str, ...]
    client_limited: bool


@dataclass(frozen=True, slots=True)
class Twin:
    """A simulated engine fitted to a measured one; `error` is the mean absolute log of their latencies' ratio."""

    spec: EngineSpec
    error: float


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The capacity in requests/s.

    bound edge: low, mid and high are set. floor: met up to `low`, which is 0 if nothing was met. never_met: all None.
    """

    bound: Bound
    ended: Ended
    low: float | None
    mid: float | None
    high: float | None
    confidence: float
    stages: tuple[StageVerdict, ...]  # in the order in which they ran
    twin: Twin | None = None  # the simulated engine whose latencies are nearest to the measured ones

    @property
    def relative_interval(self) -> float | None:
        """(high - low) / mid; None unless all three are set."""
        if self.low is None or self.mid is None or self.high is None:
            return None
        return (self.high - self.low) / self.mid
