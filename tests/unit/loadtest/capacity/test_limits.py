"""The verdict from evidence as the engine's series tell it; `tests.bench.capacity verdicts` shows it over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loadtest.capacity.limits import EdgeEvidence, Waits, describe, judge
from loadtest.capacity.stage_record import Misses
from loadtest.capacity.step_law import StepLaw

IDLE = Waits(queue=0.001, prefill=0.02, outside=0.005, tpot=0.02, tpot_outside=0.0)
BUSY = {
    "running_mean": 7.9,
    "running_max": 8.0,
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


def evidence(
    misses: Misses = TTFT, engine: dict[str, Any] | None = None, law: StepLaw | None = None, **edge: float
) -> EdgeEvidence:
    waits = {"queue": 0.001, "prefill": 0.02, "outside": 0.005, "tpot": 0.02, "tpot_outside": 0.0, **edge}
    return EdgeEvidence(misses, IDLE, Waits(**waits), BUSY | (engine or {}), law)


FULL = {"kv_usage_while_queued": [0.97] * 20, "running_while_queued": [9.0, 11.0, 12.0, 10.0]}
CASES = {
    "batch_slots": evidence(queue=0.4),
    "kv_cache": evidence(queue=0.4, engine=FULL),
    "prefill_compute": evidence(prefill=0.4),
    "decode_speed": evidence(TPOT, tpot=0.06),
    "front_end": evidence(outside=0.4),
    "admission_limit": evidence(Misses(requests=300, missed=30, rejected=25, ttft=2), queue=0.1),
}


@pytest.mark.parametrize("cause", CASES)
def test_each_cause_is_told_from_its_evidence(cause: str) -> None:
    assert judge(CASES[cause]) == cause


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        # Preempted requests wait between tokens: the cause is the cache, not the step.
        (evidence(TPOT, FULL | {"preemptions": 40.0}, tpot=0.06), "kv_cache"),
        # Tokens that are slow only outside the engine.
        (evidence(TPOT, tpot=0.06, tpot_outside=0.035), "front_end"),
        # Steps that are long for the prompts in them: 13 prompt and 6 output tokens each.
        (evidence(TPOT, law=StepLaw(0.01, 0.001, 0.001), tpot=0.06), "prefill_compute"),
        (evidence(TPOT, law=StepLaw(0.01, 0.0001, 0.001), tpot=0.06), "decode_speed"),
        # A queue in front of a batch whose size changes waits for its share of the steps.
        (evidence(queue=0.4, engine={"running_while_queued": [2.0, 3.0, 40.0, 5.0]}), "prefill_compute"),
        # A batch that stays at one size because prompts fill the steps: more slots would wait for prompts too.
        (evidence(queue=0.4, law=StepLaw(0.005, 0.001, 0.0001), tpot=0.06), "prefill_compute"),
        (evidence(queue=0.4, engine={"tokens_per_step": 2048.0}, tpot=0.12), "prefill_compute"),
        # Prompts in the steps that cost little do not hinder a larger batch.
        (evidence(queue=0.4, law=StepLaw(0.02, 0.0001, 0.0001), tpot=0.06), "batch_slots"),
        (evidence(queue=0.4, engine={"tokens_per_step": 2048.0}, tpot=0.022), "batch_slots"),
        # A full cache in which nothing waits is no limit.
        (evidence(prefill=0.4, engine={"kv_usage_while_queued": [], "kv_usage_max": 0.95}), "prefill_compute"),
    ],
)
def test_what_looks_like_another_cause_is_told_apart(seen: EdgeEvidence, cause: str) -> None:
    assert judge(seen) == cause


def test_without_the_engines_series_the_misses_alone_decide() -> None:
    nothing = Waits(None, None, None, 0.06, None)
    assert judge(EdgeEvidence(TPOT, nothing, nothing, {})) == "decode_speed"


@pytest.mark.parametrize("cause", CASES)
def test_the_evidence_is_told_with_its_figures(cause: Any) -> None:
    lines = "\n".join(describe(cause, replace(CASES[cause], rate=12.5)))
    assert "at 12.50 requests/s, where most missed" in lines
    assert "of 300 requests at the edge 30 missed" in lines
    assert "preemptions" in lines
    assert ("read off the plateau" in lines) == (cause == "batch_slots")
