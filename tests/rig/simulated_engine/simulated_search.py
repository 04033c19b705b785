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

# Time between two stages on a real engine, in which counters are read and a schedule is dealt.
OVERHEAD_S = 2.0


@dataclass(frozen=True, slots=True)
class FinishedSearch:
    """The answer, and the virtual seconds and requests that it took."""

    answer: SearchAnswer
    seconds: float
    requests: int


def search_kind(kind: Kind, seed: int, *, make: MakeEngine = SimulatedEngine, **settings: Any) -> FinishedSearch:
    """Search the capacity of an engine of this kind; equal seeds give equal answers.

    `settings` are further ones of `SearchSettings`; `make` creates the engine from its spec.
    """
    search = Search(SearchSettings(objective=kind.objective, limits=kind.limits, **settings), kind.lengths())
    elapsed, sent = 0.0, 0
    while (plan := search.next_stage(elapsed)) is not None:
        result = run_stage(kind, search, plan, seed, make)
        elapsed += result.duration_s + OVERHEAD_S
        sent += len(result.requests) + len(result.warmup)
        search.add(result)
    return FinishedSearch(search.answer(), elapsed, sent)


def run_stage(
    kind: Kind, search: Search, plan: StagePlan, seed: int, make: MakeEngine = SimulatedEngine
) -> StageResult:
    """Run one stage on an empty engine; `search` decides once a virtual second whether it ends."""
    engine = make(kind.engine, seed * 1000 + plan.number)
    last_due = plan.warmup_s + plan.max_requests / plan.rate * 2 + 60
    simulated: list[SimulatedRequest] = []

    def arrivals() -> Iterator[SimulatedRequest]:
        for request in kind.arrivals(plan.rate, f"{seed}/{plan.number}"):
            if request.arrived > last_due:
                return
            simulated.append(request)
            yield request

    ended: set[SimulatedRequest] = set()
    measured: list[StageRequest] = []
    warmup: list[StageRequest] = []
    position, decided_at, now = 0, 0.0, 0.0
    for request in run(engine, arrivals()):
        ended.add(request)
        now = max(now, request.last_token)
        if now < decided_at + 1:
            continue
        decided_at = now
        while position < len(simulated) and simulated[position] in ended:
            done = simulated[position]
            (warmup if done.arrived < plan.warmup_s else measured).append(_request(kind, done))
            position += 1
        del measured[plan.max_requests :]
        if search.decide(plan, measured) is not Decision.MORE:
            break
    return StageResult(plan, tuple(measured), now, tuple(warmup))


def _request(kind: Kind, request: SimulatedRequest) -> StageRequest:
    good = kind.limits.met(request)
    if request.rejected:
        return StageRequest(request.arrived, good, None, None, None, request.prompt_tokens, request.output_tokens, True)
    return StageRequest(
        request.arrived,
        good,
        request.ttft,
        request.tpot,
        request.e2e,
        request.prompt_tokens,
        request.output_tokens,
    )
