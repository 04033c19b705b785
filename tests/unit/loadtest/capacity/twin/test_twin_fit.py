from itertools import islice

import pytest

from loadtest.capacity.answer import SloLimits
from loadtest.capacity.simulation.simulate import run
from loadtest.capacity.simulation.simulated_engine import SimulatedEngine
from loadtest.capacity.stage import StagePlan, StageRequest, StageResult
from loadtest.capacity.twin.twin_fit import fit_twin, replay
from tests.rig.simulated_engine.engine_kinds import KINDS


def measure(name: str, rate: float, count: int, seed: int) -> StageResult:
    """Return a stage as the client measures it."""
    kind = KINDS[name]
    simulated = list(islice(kind.arrivals(rate, seed), count))
    list(run(SimulatedEngine(kind.engine, seed), simulated))
    requests = [
        StageRequest(s.arrived, False, None, None, None, s.prompt_tokens, s.output_tokens, rejected=True)
        if s.rejected
        else StageRequest(s.arrived, kind.limits.met(s), s.ttft, s.tpot, s.e2e, s.prompt_tokens, s.output_tokens)
        for s in simulated
    ]
    return StageResult(StagePlan(0, rate, "edge", 0.0, count, count), tuple(requests), 0.0)


@pytest.mark.parametrize(("name", "rates"), [("batch_slots", (2, 14, 18)), ("decode_speed", (1, 8, 10))])
def test_twin_misses_the_same_requests(name: str, rates: tuple[float, ...]) -> None:
    twin = fit_twin([measure(name, rate, 200, 1) for rate in rates])
    assert twin is not None
    fresh = measure(name, rates[1] * 1.1, 1000, 2)
    missed = {index for index, request in enumerate(fresh.requests) if not request.good}
    found = {index for index, one in enumerate(replay(twin.spec, fresh.requests)) if not KINDS[name].limits.met(one)}
    assert missed
    assert len(missed ^ found) < 0.5 * len(missed)


def test_reached_limits_are_fitted() -> None:
    slots = fit_twin([measure("batch_slots", rate, 200, 1) for rate in (2, 14, 18)])
    queue = fit_twin([measure("admission_limit", rate, 200, 1) for rate in (2, 16, 24)])
    assert slots is not None
    assert slots.spec.max_num_seqs == 8
    assert slots.spec.max_num_queued_reqs is None
    assert queue is not None
    assert queue.spec.max_num_queued_reqs == pytest.approx(6, abs=1)


def test_no_twin_without_answers() -> None:
    failed = StageRequest(0.0, False, None, None, None, 10, 10)
    assert fit_twin([StageResult(StagePlan(0, 1.0, "probe", 0.0, 1, 1), (failed,), 1.0)]) is None


def test_slo_limits() -> None:
    good = next(iter(replay(KINDS["batch_slots"].engine, [StageRequest(0.0, True, None, None, None, 64, 22)])))
    assert SloLimits(ttft_s=0.5, tpot_s=0.05).met(good)
    assert not SloLimits(ttft_s=0.001).met(good)
    assert not SloLimits(tpot_s=0.001).met(good)
    assert not SloLimits(e2e_s=0.1).met(good)
