"""Diagnose what limits the engine, from its own metrics at the capacity: cause, evidence, and setting to try."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from loadtest.capacity.bottleneck.advice import NEXT
from loadtest.capacity.bottleneck.evidence_text import describe
from loadtest.capacity.bottleneck.saturation import SaturationEvidence, Waits, gather
from loadtest.capacity.stage_record import Misses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtest.capacity.answer import SearchAnswer
    from loadtest.capacity.bottleneck.saturation import EngineFacts
    from loadtest.capacity.finding import StageSelection
    from loadtest.capacity.stage import Cause
    from loadtest.settings.run_options import Slo

# Steps count as filled with prompts: factor on TPOT under light load, and tokens per step for each running request.
_MUCH_LONGER, _MANY_PROMPT_TOKENS = 2.0, 10.0
# Share of the steps' time from which on prompts slow them: below it, steps without prompts would be hardly faster.
_MUCH_FOR_PROMPTS = 0.3
# Preemptions per request at which work is repeated.
_MOST_PREEMPTIONS = 0.02
# Share of a core at which the API server's single process is busy.
_FRONT_END_BUSY = 0.9
# Mean running requests up to which there are hardly others whose prompts could slow a request's tokens.
_ALONE = 1.5
# Causes that are said of the engine's speed, which cores that others use explain as well.
_OF_SPEED = {"prefill_compute", "decode_speed", "front_end", "unknown"}


def find_bottleneck(
    answer: SearchAnswer, stages: StageSelection, slo: Slo, facts: EngineFacts
) -> dict[str, Any] | None:
    """Return the verdict as in `capacity.json`; None if no limit was reached."""
    if stages.lightest is None:
        return None
    if answer.bound == "floor":
        if answer.ended != "client":
            return None
        problems = stages.client_limited.result.void if stages.client_limited else ()
        nothing = Waits(None, None, None, None, None)
        return _verdict("client", list(problems), SaturationEvidence(Misses(), nothing, nothing, {}))
    evidence = gather(stages, slo, facts)
    cause = judge(evidence)
    return _verdict(cause, describe(cause, evidence), evidence)


def judge(evidence: SaturationEvidence) -> Cause:
    """Return the cause that the evidence shows, `unknown` if it shows none."""
    misses, engine = evidence.misses, evidence.engine
    if misses.rejected + misses.failed > misses.missed / 2:
        # Others than the engine turn requests away too: a gateway, a quota.
        by_the_engine = engine.get("rejections", 0.0) > 0
        return "admission_limit" if by_the_engine and misses.rejected > misses.missed / 2 else "requests_failed"
    if _preempts(engine) and evidence.kv_full():
        return "kv_cache"
    cause = _judge_tokens(evidence) if _misses_after_the_first_token(evidence) else _judge_first_token(evidence)
    return "host_cpu" if cause in _OF_SPEED and evidence.others_take_cores() else cause


def _misses_after_the_first_token(evidence: SaturationEvidence) -> bool:
    misses = evidence.misses
    if misses.tpot or misses.ttft or not misses.e2e:
        return misses.tpot > misses.ttft
    # Only the limit of the whole request was missed: where did its time go?
    first = sum(_part(evidence, name) for name in ("queue", "prefill", "outside"))
    return _part(evidence, "generation") > first


def _judge_tokens(evidence: SaturationEvidence) -> Cause:
    """Judge slow tokens: outside the engine, or in its steps."""
    if evidence.saturated.tpot_outside is None:
        return "unknown"
    if _part(evidence, "tpot_outside") > _part(evidence, "tpot") / 2:
        return "front_end"
    return _judge_steps(evidence)


def _judge_steps(evidence: SaturationEvidence) -> Cause:
    """Judge what makes the steps long: the prompts read in them, or else the steps themselves and the outputs."""
    shares, engine = evidence.step_shares(), evidence.engine
    if shares is None:
        prompts, outputs = engine.get("prompt_tokens_per_s", 0.0), engine.get("output_tokens_per_s", 0.0)
        few = prompts <= outputs or engine.get("running_mean_of_one", math.inf) <= _ALONE
        return "decode_speed" if few else "unknown"
    return "prefill_compute" if shares[1] >= _MUCH_FOR_PROMPTS and _prompts_slow_steps(evidence) else "decode_speed"


def _judge_first_token(evidence: SaturationEvidence) -> Cause:
    """Judge a late first token: outside the engine, in its queue, or in the steps that read the prompt."""
    engine = evidence.engine
    queue, prefill, outside = (_part(evidence, name) for name in ("queue", "prefill", "outside"))
    if (engine.get("front_end_cpu") or 0.0) > _FRONT_END_BUSY:
        return "front_end"
    if evidence.saturated.queue is None or evidence.saturated.prefill is None or not max(queue, prefill, outside):
        return "unknown"
    if outside > max(queue, prefill):
        return "front_end"
    return _judge_queue(evidence) if queue > prefill else _judge_prefill(evidence)


def _judge_queue(evidence: SaturationEvidence) -> Cause:
    if evidence.kv_full():
        return "kv_cache"
    full = evidence.batch_full() and not _prompts_fill_steps(evidence)
    return "batch_slots" if full else _judge_prefill(evidence)


def _judge_prefill(evidence: SaturationEvidence) -> Cause:
    shares = evidence.step_shares()
    # With little of their time for prompts, the steps are as long without them.
    return "prefill_compute" if shares is None or shares[1] >= _MUCH_FOR_PROMPTS else "decode_speed"


def _part(evidence: SaturationEvidence, name: str) -> float:
    """Return by how many seconds a part grew since light load; all of it if there was no lighter load."""
    saturated: float = getattr(evidence.saturated, name) or 0.0
    if evidence.idle == evidence.saturated:
        return saturated
    return max(0.0, saturated - (getattr(evidence.idle, name) or 0.0))


def _prompts_slow_steps(evidence: SaturationEvidence) -> bool:
    """Return whether prompts lengthen the steps more than the other outputs do."""
    times, per_step = evidence.step_times, evidence.engine.get("steps_per_s")
    if times is None or not per_step:
        return False
    prompts = times.prompt_token_s * evidence.engine["prompt_tokens_per_s"] / per_step
    outputs = times.output_token_s * max(0.0, evidence.engine["output_tokens_per_s"] / per_step - 1)
    return bool(prompts > outputs)


def _prompts_fill_steps(evidence: SaturationEvidence) -> bool:
    """Return whether prompts take most of the steps' time: then they, not the slots, bound the batch."""
    engine, shares = evidence.engine, evidence.step_shares()
    if shares is not None:
        return shares[1] > 0.5
    # The search was too short to fit step times: look for long steps with many prompt tokens.
    tokens, running = engine.get("tokens_per_step") or 0.0, engine.get("running_mean_of_one", 0.0)
    longer = (evidence.saturated.tpot or 0.0) > _MUCH_LONGER * (evidence.idle.tpot or math.inf)
    return bool(longer and tokens > _MANY_PROMPT_TOKENS * running)


def _preempts(engine: Mapping[str, Any]) -> bool:
    return bool(engine.get("preemptions", 0.0) > _MOST_PREEMPTIONS * max(engine.get("requests", 0.0), 1.0))


def _verdict(cause: Cause, lines: list[str], evidence: SaturationEvidence) -> dict[str, Any]:
    advice = NEXT[cause](evidence)
    following = None if advice is None else {"setting": advice[0], "reason": advice[1]}
    return {"cause": cause, "evidence": lines, "next": following}
