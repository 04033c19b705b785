"""Diagnose what limits the engine, from its own metrics at the capacity: cause, evidence, and setting to try."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtest.capacity.bottleneck.advice import NEXT
from loadtest.capacity.bottleneck.engine_series import by_engine
from loadtest.capacity.bottleneck.step_times import fit_step_times
from loadtest.capacity.stage_record import Misses, count_misses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.capacity.answer import SearchAnswer
    from loadtest.capacity.bottleneck.step_times import StepTimes
    from loadtest.capacity.finding import StageSelection
    from loadtest.capacity.stage import Cause
    from loadtest.capacity.stage_record import StageRecord
    from loadtest.settings.run_options import Slo

# Share of used blocks at which the KV cache counts as full: a new request does not get its blocks.
_FULL = 0.9
# Share of the largest batch at which, while requests wait, the batch counts as full.
_PLATEAU = 0.9
# Steps count as filled with prompts: factor on TPOT under light load, and tokens per step for each running request.
_MUCH_LONGER, _MANY_PROMPT_TOKENS = 2.0, 10.0
# Preemptions per request at which work is repeated.
_MOST_PREEMPTIONS = 0.02
# Share of a core at which the API server's single process is busy.
_FRONT_END_BUSY = 0.9


@dataclass(frozen=True, slots=True)
class Waits:
    """Mean seconds until the first token and between tokens, by component; None if unknown."""

    queue: float | None  # in the engine's queue
    prefill: float | None  # first step to first token
    outside: float | None  # the rest of the client's TTFT: API server and network
    tpot: float | None  # at the client
    tpot_outside: float | None  # ... minus the engine's own


@dataclass(frozen=True, slots=True)
class SaturationEvidence:
    """Figures at saturation, and under the lightest load for comparison."""

    misses: Misses
    idle: Waits
    saturated: Waits
    engine: Mapping[str, Any]  # of `engine_series.summarize_samples`; empty without metrics
    step_times: StepTimes | None = None
    rate: float | None = None  # requests/s of the stage of `saturated` and `engine`


def find_bottleneck(
    answer: SearchAnswer, stages: StageSelection, slo: Slo, cache_config: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return the verdict as in `capacity.json`; None if no limit was reached."""
    if stages.lightest is None:
        return None
    if answer.bound == "floor":
        if answer.ended != "client":
            return None
        problems = stages.client_limited.result.void if stages.client_limited else ()
        nothing = Waits(None, None, None, None, None)
        return _verdict("client", list(problems), SaturationEvidence(Misses(), nothing, nothing, {}), {})
    # The stage that missed most shows best what limits the engine.
    worst = max(stages.saturated, key=lambda record: record.missed_share)
    evidence = SaturationEvidence(
        misses=count_misses([request for record in stages.saturated for request in record.result.requests], slo),
        idle=_waits(stages.lightest),
        saturated=_waits(worst),
        engine=worst.evidence,
        step_times=fit_step_times([series for record in stages.counting for series in by_engine(record.samples)]),
        rate=worst.result.plan.rate,
    )
    cause = judge(evidence)
    return _verdict(cause, describe(cause, evidence), evidence, cache_config)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _waits(record: StageRecord) -> Waits:
    ended = [request for request in record.result.requests if request.e2e_s is not None]
    ttft = _mean([request.ttft_s for request in ended if request.ttft_s is not None])
    tpot = _mean([request.tpot_s for request in ended if request.tpot_s is not None])
    tokens = _mean([float(request.output_tokens) for request in ended if request.output_tokens > 1])
    queue, prefill = record.evidence.get("queue_s"), record.evidence.get("prefill_s")
    decode = record.evidence.get("decode_s")
    outside = tpot_outside = None
    if ttft is not None and queue is not None and prefill is not None:
        outside = max(0.0, ttft - queue - prefill)
    if tpot is not None and tokens is not None and decode is not None:
        tpot_outside = max(0.0, tpot - decode / (tokens - 1))
    return Waits(queue, prefill, outside, tpot, tpot_outside)


def judge(evidence: SaturationEvidence) -> Cause:
    """Return the cause that explains the evidence best."""
    misses, engine = evidence.misses, evidence.engine
    if misses.rejected > misses.missed / 2:
        return "admission_limit"
    if _preempts(engine) and _kv_full(engine):
        return "kv_cache"
    if misses.tpot > misses.ttft:
        slower = _increase(evidence.saturated.tpot, evidence.idle.tpot)
        outside = _increase(evidence.saturated.tpot_outside, evidence.idle.tpot_outside)
        if slower > 0 and outside > slower / 2:
            return "front_end"
        return "prefill_compute" if _prompts_slow_steps(evidence) else "decode_speed"
    queue = _increase(evidence.saturated.queue, evidence.idle.queue)
    prefill = _increase(evidence.saturated.prefill, evidence.idle.prefill)
    outside = _increase(evidence.saturated.outside, evidence.idle.outside)
    if outside > max(queue, prefill) or (engine.get("front_end_cpu") or 0.0) > _FRONT_END_BUSY:
        return "front_end"
    return _judge_queue(evidence) if queue > prefill else "prefill_compute"


def _judge_queue(evidence: SaturationEvidence) -> Cause:
    engine = evidence.engine
    if _kv_full(engine):
        return "kv_cache"
    return "batch_slots" if _batch_full(engine) and not _prompts_fill_steps(evidence) else "prefill_compute"


def _increase(saturated: float | None, idle: float | None) -> float:
    return max(0.0, (saturated or 0.0) - (idle or 0.0))


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
    engine, times = evidence.engine, evidence.step_times
    prompts, outputs = engine.get("prompt_tokens_per_s", 0.0), engine.get("output_tokens_per_s", 0.0)
    if times is not None and engine.get("steps_per_s"):
        return times.shares(engine["steps_per_s"], prompts, outputs)[1] > 0.5
    # The search was too short to fit step times: look for long steps with many prompt tokens.
    tokens, running = engine.get("tokens_per_step") or 0.0, engine.get("running_mean_of_one", 0.0)
    longer = (evidence.saturated.tpot or 0.0) > _MUCH_LONGER * (evidence.idle.tpot or math.inf)
    return bool(longer and tokens > _MANY_PROMPT_TOKENS * running)


def _preempts(engine: Mapping[str, Any]) -> bool:
    return bool(engine.get("preemptions", 0.0) > _MOST_PREEMPTIONS * max(engine.get("requests", 0.0), 1.0))


def _kv_full(engine: Mapping[str, Any]) -> bool:
    queued: list[float] = engine.get("kv_usage_while_queued") or []
    if queued:
        return sum(usage >= _FULL for usage in queued) > len(queued) / 2
    return bool(engine.get("kv_usage_max", 0.0) >= _FULL)


def _batch_full(engine: Mapping[str, Any]) -> bool:
    """Return whether the batch stays at its largest while requests wait."""
    queued: list[float] = engine.get("running_while_queued") or []
    return bool(queued) and sum(running >= _PLATEAU * max(queued) for running in queued) > len(queued) / 2


def describe(cause: Cause, evidence: SaturationEvidence) -> list[str]:
    """Return the evidence for the cause, as lines with figures."""
    misses, engine, saturated, idle = evidence.misses, evidence.engine, evidence.saturated, evidence.idle
    lines = [
        f"of {misses.requests} requests at the edge {misses.missed} missed: TTFT {misses.ttft}, TPOT {misses.tpot}"
        + (f", E2E {misses.e2e}" if misses.e2e else "")
        + f", rejected {misses.rejected}, failed {misses.failed}"
    ]
    if evidence.rate is not None:
        lines.append(f"all that follows: at {evidence.rate:.2f} requests/s, where most missed")
    if saturated.queue is not None and saturated.prefill is not None and saturated.outside is not None:
        lines.append(
            f"until the first token, mean: {_ms(saturated.queue)} in the queue, {_ms(saturated.prefill)} prefill, "
            f"{_ms(saturated.outside)} outside the engine (under light load {_ms(idle.queue)}, {_ms(idle.prefill)}, "
            f"{_ms(idle.outside)})"
        )
    if saturated.tpot is not None and idle.tpot is not None:
        lines.append(f"time per output token, mean: {_ms(saturated.tpot)} (under light load {_ms(idle.tpot)})")
    if engine:
        queued = engine.get("running_while_queued") or []
        plateau = f"; where some waited {min(queued):.0f} to {max(queued):.0f} ran" if queued else ""
        lines.append(
            f"running {engine['running_mean']:.1f} (most {engine['running_max']:.0f}), waiting "
            f"{engine['waiting_mean']:.1f} ({engine['waiting_capacity_mean']:.1f} for capacity, "
            f"{engine['waiting_deferred_mean']:.1f} deferred){plateau}"
        )
        lines.append(
            f"KV cache {engine['kv_usage_mean']:.0%} full (most {engine['kv_usage_max']:.0%}), "
            f"{engine['preemptions']:.0f} preemptions, {engine['rejections']:.0f} rejections"
        )
        if engine.get("tokens_per_step") is not None:
            lines.append(
                f"{engine['steps_per_s']:.0f} steps/s of {engine['tokens_per_step']:.1f} tokens; "
                f"{engine['prompt_tokens_per_s']:.0f} prompt and {engine['output_tokens_per_s']:.0f} output tokens/s"
            )
        lines.append(
            "API server "
            + ("tells no CPU" if (cpu := engine["front_end_cpu"]) is None else f"{cpu:.0%} of a core")
            + f", the load generator's box {engine['host_cpu']:.0%} of all its cores"
        )
    if engine and evidence.step_times is not None and engine["steps_per_s"]:
        times = evidence.step_times
        shares = times.shares(engine["steps_per_s"], engine["prompt_tokens_per_s"], engine["output_tokens_per_s"])
        lines.append(
            f"of the steps' time {shares[1]:.0%} is for prompts, {shares[2]:.0%} for outputs, {shares[0]:.0%} for the "
            f"steps themselves (fitted: {_ms(times.prompt_token_s)} a prompt token, {_ms(times.output_token_s)} "
            f"an output token, {_ms(times.step_s)} a step)"
        )
    if cause == "batch_slots":
        lines.append("max_num_seqs is not among the engine's metrics: the limit is read off the plateau")
    return lines


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.3g} ms"


def _verdict(
    cause: Cause, lines: list[str], evidence: SaturationEvidence, cache_config: Mapping[str, str]
) -> dict[str, Any]:
    setting, reason = NEXT[cause](evidence.engine, cache_config, evidence.misses)
    return {"cause": cause, "evidence": lines, "next": {"setting": setting, "reason": reason}}
