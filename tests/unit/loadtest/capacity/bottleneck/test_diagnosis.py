"""Diagnosis from made-up evidence; `tests.bench.capacity verdicts` does it over HTTP."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from loadtest.capacity.answer import SearchAnswer
from loadtest.capacity.bottleneck.advice import NEXT, read_step_limit
from loadtest.capacity.bottleneck.diagnosis import find_bottleneck, judge
from loadtest.capacity.bottleneck.engine_series import add_up, summarize_samples
from loadtest.capacity.bottleneck.evidence_text import describe
from loadtest.capacity.bottleneck.saturation import EngineFacts, SaturationEvidence, Waits
from loadtest.capacity.bottleneck.step_times import StepTimes
from loadtest.capacity.engine_sample import EngineSample
from loadtest.capacity.finding import select_stages
from loadtest.capacity.stage_record import Misses
from loadtest.results.failure_texts import FailureText
from loadtest.settings.run_options import Slo
from tests.rig.capacity_objects import record

IDLE = Waits(queue=0.001, prefill=0.02, outside=0.005, tpot=0.02, tpot_outside=0.0)
BUSY = {
    "running_mean": 7.9,
    "running_max": 8.0,
    "running_mean_of_one": 7.9,
    "running_max_of_one": 8.0,
    "waiting_mean": 3.0,
    "waiting_capacity_mean": 3.0,
    "waiting_deferred_mean": 0.0,
    "running_while_queued": [8.0] * 20,
    "kv_usage_while_queued": [0.3] * 20,
    "kv_usage_mean": 0.3,
    "kv_usage_max": 0.35,
    "preemptions": 0.0,
    "rejections": 0.0,
    "requests": 300.0,
    "steps_per_s": 50.0,
    "tokens_per_step": 20.0,
    "prompt_tokens_per_s": 640.0,
    "output_tokens_per_s": 300.0,
    "front_end_cpu": 0.1,
    "host_cpu": 0.5,
}
TTFT = Misses(requests=300, missed=30, ttft=30)
TPOT = Misses(requests=300, missed=30, tpot=30)
E2E = Misses(requests=300, missed=30, e2e=30)


def evidence(
    misses: Misses = TTFT, engine: dict[str, Any] | None = None, step_times: StepTimes | None = None, **edge: float
) -> SaturationEvidence:
    waits = {"queue": 0.001, "prefill": 0.02, "outside": 0.005, "tpot": 0.02, "tpot_outside": 0.0, **edge}
    return SaturationEvidence(misses, IDLE, Waits(**waits), BUSY | (engine or {}), step_times)


SLOW_STEPS = StepTimes(0.01, 0.0001, 0.001)
FULL = {"kv_usage_while_queued": [0.97] * 20, "running_while_queued": [9.0, 11.0, 12.0, 10.0]}
CASES = {
    "batch_slots": evidence(queue=0.4),
    "kv_cache": evidence(queue=0.4, engine=FULL),
    "prefill_compute": evidence(prefill=0.4),
    "decode_speed": evidence(TPOT, step_times=SLOW_STEPS, tpot=0.06),
    "front_end": evidence(outside=0.4),
    "admission_limit": evidence(Misses(requests=300, missed=30, rejected=25, ttft=2), {"rejections": 40.0}, queue=0.1),
}


@pytest.mark.parametrize("cause", CASES)
def test_each_cause_is_diagnosed(cause: str) -> None:
    assert judge(CASES[cause]) == cause


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        # Preempted requests wait between tokens: the cause is the cache, not the steps.
        (evidence(TPOT, FULL | {"preemptions": 40.0}, tpot=0.06), "kv_cache"),
        # Tokens are slow outside the engine only.
        (evidence(TPOT, tpot=0.06, tpot_outside=0.035), "front_end"),
        # Steps of 13 prompt and 6 output tokens.
        (evidence(TPOT, step_times=StepTimes(0.01, 0.001, 0.001), tpot=0.06), "prefill_compute"),
        # Without a fit: few prompt tokens, or nobody whose prompts could disturb.
        (evidence(TPOT, {"prompt_tokens_per_s": 250.0}, tpot=0.06), "decode_speed"),
        (evidence(TPOT, {"running_mean_of_one": 1.1}, tpot=0.06), "decode_speed"),
        (evidence(TPOT, tpot=0.06), "unknown"),
        # A first token that waits for steps which are long without prompts.
        (evidence(prefill=0.4, step_times=StepTimes(0.05, 0.0001, 0.0001)), "decode_speed"),
        # Only the whole request has a limit: its time went into the tokens, or into the wait for the first.
        (evidence(E2E, step_times=SLOW_STEPS, tpot=0.06, queue=0.1, generation=3.0), "decode_speed"),
        (evidence(E2E, tpot=0.03, queue=3.0, generation=1.0), "batch_slots"),
        # The batch is not full: requests wait for a share of the steps.
        (evidence(queue=0.4, engine={"running_while_queued": [2.0, 3.0, 40.0, 5.0]}), "prefill_compute"),
        # The batch is full because prompts fill the steps: more slots would not help.
        (evidence(queue=0.4, step_times=StepTimes(0.005, 0.001, 0.0001), tpot=0.06), "prefill_compute"),
        (evidence(queue=0.4, engine={"tokens_per_step": 2048.0}, tpot=0.12), "prefill_compute"),
        # Cheap prompts do not prevent a larger batch.
        (evidence(queue=0.4, step_times=StepTimes(0.02, 0.0001, 0.0001), tpot=0.06), "batch_slots"),
        (evidence(queue=0.4, engine={"tokens_per_step": 2048.0}, tpot=0.022), "batch_slots"),
        # 40 engines: steps and batch are per engine.
        (evidence(queue=0.4, engine={"tokens_per_step": 2048.0, "running_mean": 316.0}, tpot=0.12), "prefill_compute"),
        # An API server of several processes reports no CPU.
        (evidence(prefill=0.4, engine={"front_end_cpu": None}), "prefill_compute"),
        # A full cache is no limit while nothing waits.
        (evidence(prefill=0.4, engine={"kv_usage_while_queued": [], "kv_usage_max": 0.95}), "prefill_compute"),
    ],
)
def test_similar_causes_are_distinguished(seen: SaturationEvidence, cause: str) -> None:
    assert judge(seen) == cause


def test_diagnosis_without_engine_metrics() -> None:
    nothing = Waits(None, None, None, 0.06, None)
    for misses in (TTFT, TPOT):
        seen = SaturationEvidence(misses, nothing, nothing, {})
        assert judge(seen) == "unknown"
        assert describe("unknown", seen)[-1].startswith("the server shows no metrics of vLLM")
        assert NEXT["unknown"](seen) is None


def test_unknown_cause_says_what_is_excluded() -> None:
    seen = replace(evidence(TPOT, tpot=0.06), facts=EngineFacts(is_here=True))
    assert judge(seen) == "unknown"
    assert describe("unknown", seen)[-5:] == [
        "excluded: failed requests",
        "excluded: the KV cache, 35% full at most",
        "excluded: the API server's CPU, 10% of a core",
        "excluded: other programs on the host, 50% of its cores busy",
        "not known: the steps' time for prompts and for outputs; a longer search (--budget) may tell",
    ]


# A slow box of two cores: prompts of 64 tokens, steps of 12 tokens, 77 % of their time constant, only TPOT missed.
SLOW_BOX = evidence(
    TPOT,
    {
        "steps_per_s": 10.0,
        "tokens_per_step": 12.0,
        "largest_step": 128.0,
        "prompt_tokens_per_s": 80.0,
        "output_tokens_per_s": 40.0,
        "host_cpu": 0.91,
    },
    StepTimes(0.077, 0.0019, 0.002),
    tpot=0.12,
)


@pytest.mark.parametrize(
    ("here", "others", "busy", "cause"),
    [
        (True, 0.45, 0.91, "host_cpu"),
        (True, 0.05, 0.91, "decode_speed"),  # the engine itself uses the cores
        (True, 0.45, 0.6, "decode_speed"),  # there are cores to spare
        (False, 0.45, 0.91, "decode_speed"),  # of another host nothing is known
        (True, None, 0.91, "decode_speed"),
    ],
)
def test_cores_of_others_are_a_cause(here: bool, others: float | None, busy: float, cause: str) -> None:
    engine = SLOW_BOX.engine | {"host_cpu": busy}
    seen = replace(SLOW_BOX, engine=engine, others_cpu=others, facts=EngineFacts(is_here=here))
    assert judge(seen) == cause
    advice = NEXT[judge(seen)](seen)
    assert advice is not None
    assert "--max-num-batched-tokens" not in advice[0]
    lines = "\n".join(describe(judge(seen), seen))
    assert ("others used 45% while no request was under way" in lines) == (here and others == 0.45)
    assert ("that the engine runs there is not known" in lines) == (not here)


def test_full_cache_is_no_fault_of_others() -> None:
    seen = replace(CASES["kv_cache"], others_cpu=0.5, facts=EngineFacts(is_here=True))
    assert judge(replace(seen, engine=seen.engine | {"host_cpu": 0.95})) == "kv_cache"


@pytest.mark.parametrize(
    ("largest", "limit", "advised"),
    [(128.0, None, False), (512.0, None, False), (2048.0, None, True), (512.0, 512, True), (2048.0, 8192, False)],
)
def test_step_limit_is_advised_where_it_binds(largest: float, limit: int | None, advised: bool) -> None:
    for misses in (TPOT, TTFT):
        made = evidence(misses, {"largest_step": largest}, StepTimes(0.01, 0.001, 0.001), prefill=0.4, tpot=0.06)
        seen = replace(made, facts=EngineFacts(step_limit=limit))
        assert judge(seen) == "prefill_compute"
        assert (NEXT["prefill_compute"](seen) is not None) == advised
        said = any("another limit would change nothing" in line for line in describe("prefill_compute", seen))
        assert said != advised


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        ("--max-num-seqs=8 --max-num-batched-tokens=4096", 4096),
        ("--max-num-batched-tokens 512", 512),
        ("--max-num-batched-tokens", None),
        ("--max-num-batched-tokens=many", None),
        ("--quote='", None),
        ("", None),
    ],
)
def test_step_limit_is_read_from_arguments(arguments: str, limit: int | None) -> None:
    assert read_step_limit(arguments) == limit


def test_second_api_server_needs_a_busy_first() -> None:
    seen = CASES["front_end"]
    assert NEXT["front_end"](seen) is None
    assert NEXT["front_end"](replace(seen, engine=seen.engine | {"front_end_cpu": 0.95})) is not None


@pytest.mark.parametrize(
    ("misses", "engine"),
    [
        (Misses(requests=40, missed=40, failed=40), {}),
        (Misses(requests=40, missed=21, rejected=20, ttft=1), {}),
        (Misses(requests=40, missed=21, rejected=20, ttft=1), {"rejections": 0.0}),
        (Misses(requests=40, missed=40, rejected=15, failed=15, tpot=10), {"rejections": 15.0}),
    ],
    ids=["all fail", "503 of no vLLM", "503 of a gateway", "both"],
)
def test_failed_requests_are_their_own_cause(misses: Misses, engine: dict[str, Any]) -> None:
    failures = [FailureText("rejected", "HTTP 503: no upstream", 20)]
    seen = replace(evidence(misses, engine, tpot=0.06), failures=failures)
    assert judge(seen) == "requests_failed"
    assert describe("requests_failed", seen)[1] == "20 x rejected: HTTP 503: no upstream"
    assert NEXT["requests_failed"](seen) is None


def test_advised_batch_is_per_engine() -> None:
    behind_a_router = BUSY | {"running_max": 16.0}
    advice = NEXT["batch_slots"](evidence(engine=behind_a_router))
    assert advice is not None
    assert advice[0] == "VLLM_EXTRA_ARGS=--max-num-seqs=16"


def test_step_times_are_fitted_per_engine() -> None:
    random = Random(1)  # noqa: S311  # repeatable
    engines = {address: EngineSample(0.0, 0.5, running=4) for address in "ab"}
    samples = [add_up(engines)]
    for _ in range(30):
        for address, one in engines.items():
            prompt, output = random.uniform(0, 3000), random.uniform(100, 300)
            engines[address] = replace(
                one,
                at=one.at + 1,
                steps=one.steps + (1 - 0.0002 * prompt - 0.0009 * output) / 0.01,
                prompt_tokens=one.prompt_tokens + prompt,
                output_tokens=one.output_tokens + output,
            )
        samples.append(add_up(dict(engines)))
    stage = replace(record(10.0, missed=20, evidence=summarize_samples(samples)), samples=samples)
    answer = SearchAnswer("edge", "interval", 9.8, 10.0, 10.2, 0.95, ())
    found = find_bottleneck(answer, select_stages(answer, [stage]), Slo(ttft=0.5), EngineFacts())
    assert found is not None
    assert "0.2 ms a prompt token, 0.9 ms an output token, 10 ms a step" in "".join(found["evidence"])


@pytest.mark.parametrize("cause", CASES)
def test_evidence_has_figures(cause: Any) -> None:
    lines = "\n".join(describe(cause, replace(CASES[cause], rate=12.5)))
    assert "at 12.50 requests/s, where most missed" in lines
    assert "of 300 requests at the edge 30 missed" in lines
    assert "preemptions" in lines
    assert "API server 10% of a core" in lines
    assert ("read off the plateau" in lines) == (cause == "batch_slots")


def test_unknown_api_server_cpu_is_named() -> None:
    lines = "\n".join(describe("prefill_compute", evidence(prefill=0.4, engine={"front_end_cpu": None})))
    assert "API server tells no CPU" in lines


def test_evidence_comes_from_the_worst_stage() -> None:
    stages = [record(9.9, missed=10), record(10.2, missed=30), record(10.0, missed=5)]
    answer = SearchAnswer("edge", "interval", 9.8, 10.0, 10.2, 0.95, ())
    found = find_bottleneck(answer, select_stages(answer, stages), Slo(ttft=0.5), EngineFacts())
    assert found is not None
    assert "at 10.20 requests/s, where most missed" in found["evidence"][1]
