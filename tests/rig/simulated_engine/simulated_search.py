"""A capacity search against a simulated engine, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtest.capacity.answer import SearchSettings
from loadtest.capacity.search.search import Search
from loadtest.capacity.simulation.simulate import run
from loadtest.capacity.simulation.simulated_engine import SimulatedEngine
from loadtest.capacity.stage import Decision, StagePlan, StageRequest, StageResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtest.capacity.answer import SearchAnswer
    from loadtest.capacity.simulation.engine_spec import EngineSpec, SimulatedRequest
    from tests.rig.simulated_engine.engine_kinds import Kind

    MakeEngine = Callable[[EngineSpec, int], SimulatedEngine]

# What goes by between two stages on a real engine: counters are read, a new schedule is dealt.
OVERHEAD_S = 2.0


@dataclass(frozen=True, slots=True)
class Searched:
    """The answer, and what it took: virtual seconds, and requests sent."""

    answer: SearchAnswer
    seconds: float
    requests: int


def search_kind(kind: Kind, seed: int, *, make: MakeEngine = SimulatedEngine, **settings: Any) -> Searched:
    """Search the capacity of an engine of this kind. The same seed gives the same answer.

    `settings` are those of `SearchSettings` that the kind does not say; `make` may make another engine of its spec.
    """
    search = Search(SearchSettings(objective=kind.objective, limits=kind.limits, **settings), kind.lengths())
    elapsed, sent = 0.0, 0
    while (plan := search.next_stage(elapsed)) is not None:
        result = run_stage(kind, search, plan, seed, make)
        elapsed += result.duration_s + OVERHEAD_S
        sent += len(result.requests) + len(result.warmup)
        search.add(result)
    return Searched(search.answer(), elapsed, sent)


def run_stage(
    kind: Kind, search: Search, plan: StagePlan, seed: int, make: MakeEngine = SimulatedEngine
) -> StageResult:
    """Run one stage on an empty engine, asking `search` once a virtual second whether it may end."""
    engine = make(kind.engine, seed * 1000 + plan.number)
    last_due = plan.warmup_s + plan.max_requests / plan.rate * 2 + 60
    sequences: list[SimulatedRequest] = []

    def arrivals() -> Iterator[SimulatedRequest]:
        for sequence in kind.arrivals(plan.rate, f"{seed}/{plan.number}"):
            if sequence.arrived > last_due:
                return
            sequences.append(sequence)
            yield sequence

    ended: set[SimulatedRequest] = set()
    measured: list[StageRequest] = []
    warmup: list[StageRequest] = []
    position, asked, now = 0, 0.0, 0.0
    for sequence in run(engine, arrivals()):
        ended.add(sequence)
        now = max(now, sequence.last_token)
        if now < asked + 1:
            continue
        asked = now
        while position < len(sequences) and sequences[position] in ended:
            done = sequences[position]
            (warmup if done.arrived < plan.warmup_s else measured).append(_request(kind, done))
            position += 1
        del measured[plan.max_requests :]
        if search.decide(plan, measured) is not Decision.MORE:
            break
    return StageResult(plan, tuple(measured), now, tuple(warmup))


def _request(kind: Kind, sequence: SimulatedRequest) -> StageRequest:
    good = kind.limits.met(sequence)
    if sequence.rejected:
        return StageRequest(
            sequence.arrived, good, None, None, None, sequence.prompt_tokens, sequence.output_tokens, True
        )
    return StageRequest(
        sequence.arrived,
        good,
        sequence.ttft,
        sequence.tpot,
        sequence.e2e,
        sequence.prompt_tokens,
        sequence.output_tokens,
    )
