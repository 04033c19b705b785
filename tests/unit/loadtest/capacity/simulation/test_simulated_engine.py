from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest

from loadtest.capacity.simulation.engine_spec import EngineSpec, SimulatedRequest
from loadtest.capacity.simulation.simulate import run
from loadtest.capacity.simulation.simulated_engine import SimulatedEngine


def poisson(rate: float, prompt: int, output: int, seed: int = 1) -> Iterator[SimulatedRequest]:
    random, at = Random(seed), 0.0  # noqa: S311
    while True:
        at += random.expovariate(rate)
        yield SimulatedRequest(at, prompt, output)


def at_once(count: int, prompt: int, output: int) -> list[SimulatedRequest]:
    return [SimulatedRequest(0.0, prompt, output) for _ in range(count)]


def run_all(spec: EngineSpec, sequences: list[SimulatedRequest]) -> SimulatedEngine:
    engine = SimulatedEngine(spec, 1)
    assert len(list(run(engine, sequences))) == len(sequences)
    return engine


def test_single_request_one_step_per_token() -> None:
    alone = at_once(1, 64, 10)
    run_all(EngineSpec(step_s=0.02, noise=0.0), alone)
    assert alone[0].ttft == pytest.approx(0.02)
    assert alone[0].tpot == pytest.approx(0.02)
    assert alone[0].e2e == pytest.approx(0.2)


def test_full_batch_makes_requests_wait() -> None:
    requests = at_once(3, 8, 5)
    run_all(EngineSpec(max_num_seqs=2, step_s=0.01, noise=0.0), requests)
    assert [request.ttft for request in requests] == pytest.approx([0.01, 0.01, 0.06])


def test_long_prompt_takes_several_steps() -> None:
    requests = at_once(1, 5000, 2)
    engine = run_all(EngineSpec(max_num_batched_tokens=2048, step_s=0.01, prefill_token_s=1e-5, noise=0.0), requests)
    assert requests[0].ttft == pytest.approx(3 * 0.01 + 5000 * 1e-5)
    assert engine.steps == 4


def test_decoding_continues_during_prefill() -> None:
    spec = EngineSpec(max_num_batched_tokens=512, step_s=0.01, noise=0.0)
    early, late = SimulatedRequest(0.0, 8, 20), SimulatedRequest(0.011, 1024, 2)
    run_all(spec, [early, late])
    assert early.tpot == pytest.approx(0.01)  # one token a step throughout
    assert late.first_token == pytest.approx(0.05)  # its prompt took 511 tokens of each step


def test_step_time_grows_with_load() -> None:
    spec = EngineSpec(step_s=0.01, sequence_s=0.001, context_token_s=1e-5, noise=0.0)
    few, many, long = at_once(1, 8, 50), at_once(20, 8, 50), at_once(1, 1000, 50)
    for requests in (few, many, long):
        run_all(spec, requests)
    assert many[0].tpot == pytest.approx((few[0].tpot or 0) + 19 * 0.001 + 19 * 8e-5, rel=0.2)
    assert long[0].tpot == pytest.approx((few[0].tpot or 0) + 992e-5, rel=0.02)


def test_last_admitted_is_preempted() -> None:
    spec = EngineSpec(kv_blocks=4, block_size=16, step_s=0.01, noise=0.0)
    requests = at_once(2, 30, 30)  # two blocks each at first, four at the end
    engine = run_all(spec, requests)
    assert engine.preemptions >= 1
    assert requests[0].preemptions == 0
    assert requests[1].preemptions >= 1
    assert requests[0].e2e == pytest.approx(0.3)
    assert requests[1].e2e > 0.3
    assert requests[1].ttft == pytest.approx(0.01)  # the first token was sent before


def test_all_blocks_are_released() -> None:
    spec = EngineSpec(kv_blocks=40, block_size=16, step_s=0.01, noise=0.2)
    random = Random(5)  # noqa: S311
    sequences = [SimulatedRequest(index * 0.02, random.randint(1, 200), random.randint(1, 200)) for index in range(500)]
    engine = run_all(spec, sequences)
    assert engine.preemptions > 10
    assert engine.used_blocks == 0
    assert engine.idle
    assert engine._decoding == engine._context == sum(engine._needs_block) == 0


def test_used_blocks_match_contexts() -> None:
    spec = EngineSpec(kv_blocks=60, block_size=16, step_s=0.01, noise=0.0)
    engine = SimulatedEngine(spec, 1)
    for request in islice(poisson(50, 40, 30), 40):
        engine.arrive(request)
    while engine.begin_step():
        engine.end_step()
        held = sum(
            spec.blocks(sequence.computed + engine.steps - sequence.decoding_since)
            if sequence.decoding_since >= 0
            else spec.blocks(sequence.prompt_tokens + sequence.generated)
            for sequence in engine.running
        )
        assert engine.used_blocks == held <= spec.kv_blocks


def test_oversized_request_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        SimulatedEngine(EngineSpec(kv_blocks=4), 1).arrive(SimulatedRequest(0.0, 60, 10))


def test_full_queue_rejects_at_once() -> None:
    requests = [SimulatedRequest(0.001 * index, 8, 10) for index in range(10)]
    engine = run_all(EngineSpec(max_num_seqs=2, max_num_queued_reqs=3, step_s=0.05, noise=0.0), requests)
    assert engine.rejections == sum(request.rejected for request in requests) > 0
    assert all(request.last_token == request.arrived for request in requests if request.rejected)


def test_api_server_is_sequential() -> None:
    requests = at_once(3, 8, 1)
    run_all(EngineSpec(step_s=0.01, request_s=0.1, output_token_s=0.02, noise=0.0), requests)
    assert requests[0].ready == pytest.approx(0.1)
    assert requests[2].ready == pytest.approx(0.3)
    assert requests[0].ttft == pytest.approx(0.32)  # its token leaves after the requests that arrived before


def test_abort_frees_the_slot() -> None:
    engine = SimulatedEngine(EngineSpec(max_num_seqs=1, step_s=0.01, noise=0.0), 1)
    first, second = at_once(2, 20, 50)
    engine.arrive(first)
    engine.arrive(second)
    engine.begin_step()
    engine.end_step()
    engine.begin_step()
    assert engine.abort(first)
    engine.end_step()
    assert not engine.abort(first)
    while engine.begin_step():
        engine.end_step()
    assert second.e2e == pytest.approx(0.02 + 0.5)
    assert engine.used_blocks == 0


def test_abort_frees_the_api_server() -> None:
    engine = SimulatedEngine(EngineSpec(step_s=0.01, request_s=0.1, noise=0.0), 1)
    requests = at_once(10, 20, 1)
    for request in requests:
        engine.arrive(request)
    for request in requests[:9]:
        assert engine.abort(request, 0.05)
    while engine.begin_step():
        engine.end_step()
    assert requests[9].ttft == pytest.approx(0.2 + 0.01)  # behind the request whose processing had begun


def test_cached_prompt_needs_no_prefill() -> None:
    spec = EngineSpec(step_s=0.01, prefill_token_s=1e-4, noise=0.0)
    cold, warm = SimulatedRequest(0.0, 1000, 1), SimulatedRequest(0.0, 1000, 1, cached_tokens=1000)
    run_all(spec, [cold])
    run_all(spec, [warm])
    assert cold.ttft == pytest.approx(0.11)
    assert warm.ttft == pytest.approx(0.0101)


def test_single_slot_waits_like_md1() -> None:
    """M/D/1: the mean wait is rho / (2 (1 - rho)) service times (Pollaczek and Khinchine)."""
    spec = EngineSpec(max_num_seqs=1, step_s=0.01, noise=0.0)
    waits = [sequence.ttft - 0.01 for sequence in run(SimulatedEngine(spec, 1), islice(poisson(7, 8, 10), 100_000))]
    assert sum(waits) / len(waits) == pytest.approx(0.1 * 0.7 / (2 * 0.3), rel=0.05)


def test_seed_repeats_the_run() -> None:
    spec = EngineSpec(max_num_seqs=4, noise=0.3)
    first, second = (
        [sequence.last_token for sequence in run(SimulatedEngine(spec, 3), islice(poisson(30, 8, 10), 500))]
        for _ in range(2)
    )
    assert first == second


def test_impossible_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="max_num_batched_tokens"):
        EngineSpec(max_num_seqs=256, max_num_batched_tokens=128)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_num_seqs": 8},  # full batch, with others that wait
        {"kv_blocks": 60},  # preemptions
        {"max_num_seqs": 4, "max_num_queued_reqs": 3, "request_s": 0.002, "output_token_s": 0.0005},
        {"max_num_seqs": 32, "max_num_batched_tokens": 48, "sequence_s": 0.001, "context_token_s": 1e-6},
    ],
)
def test_skipped_steps_change_nothing(monkeypatch: pytest.MonkeyPatch, limits: dict[str, float]) -> None:
    def outcome() -> tuple[list[float], int, int, float]:
        requests = list(islice(poisson(12.0, 60, 40), 300))
        engine = SimulatedEngine(EngineSpec(**({"step_s": 0.01, "noise": 0.1} | limits)), 1)
        list(run(engine, requests))
        times = [at for one in requests if not one.rejected for at in (one.first_token, one.last_token)]
        return times, engine.steps, engine.rejections + engine.preemptions, engine.busy_s

    skipping = outcome()
    monkeypatch.setattr(SimulatedEngine, "skip_quiet_steps", lambda *_: None)
    stepping = outcome()
    assert skipping[1:3] == stepping[1:3]
    assert skipping[0] == pytest.approx(stepping[0], rel=1e-12)
    assert skipping[3] == pytest.approx(stepping[3], rel=1e-9)
