"""Why the engine carries no more: one verdict from its own series at the edge, its evidence, and what to try next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtest.capacity.bottleneck.advice import NEXT
from loadtest.capacity.bottleneck.engine_series import by_engine
from loadtest.capacity.bottleneck.step_times import fit_step_law
from loadtest.capacity.stage_record import Misses, count_misses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.capacity.answer import SearchAnswer
    from loadtest.capacity.bottleneck.step_times import StepLaw
    from loadtest.capacity.finding import StageSelection
    from loadtest.capacity.stage import Cause
    from loadtest.capacity.stage_record import StageRecord
    from loadtest.settings.run_options import Slo

# Above this, the KV cache is full: a request that comes needs blocks that are not there.
_FULL = 0.9
# Requests while some wait: within this of the largest number, the batch is at its limit.
_PLATEAU = 0.9
# Steps are filled with prompts: so much longer than under light load, and so many tokens for each that runs.
_MUCH_LONGER, _MANY_PROMPT_TOKENS = 2.0, 10.0
# Preempted more often than once in so many requests, work is done twice.
_PREEMPTED = 0.02
# The API server's one process, as a share of a core.
_FRONT_END_BUSY = 0.9


@dataclass(frozen=True, slots=True)
class Waits:
    """Mean seconds until the first token and between tokens, by where they pass; None where it is not known."""

    queue: float | None  # in the engine, before its first step
    prefill: float | None  # from its first step to its first token
    outside: float | None  # the rest of the client's TTFT: API server and network
    tpot: float | None  # as the client sees it
    tpot_outside: float | None  # ... less the engine's own


@dataclass(frozen=True, slots=True)
class EdgeEvidence:
    """What is seen at the edge, beside the lightest load."""

    misses: Misses
    idle: Waits
    edge: Waits
    engine: Mapping[str, Any]  # of `engine.spans`; empty where the engine tells nothing
    law: StepLaw | None = None
    rate: float | None = None  # requests/s of the stage that `edge` and `engine` were seen in


def find_limit(
    answer: SearchAnswer, stages: StageSelection, slo: Slo, cache_config: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return the verdict as `capacity.json` holds it; None where no limit was reached."""
    if stages.lightest is None:
        return None
    if answer.bound == "floor":
        if answer.ended != "client":
            return None
        problems = stages.client_limited.result.void if stages.client_limited else ()
        nothing = Waits(None, None, None, None, None)
        return _verdict("client", list(problems), EdgeEvidence(Misses(), nothing, nothing, {}), {})
    # The stage that missed most shows best what limits the engine.
    worst = max(stages.saturated, key=lambda record: record.missed_share)
    evidence = EdgeEvidence(
        misses=count_misses([request for record in stages.saturated for request in record.result.requests], slo),
        idle=_waits(stages.lightest),
        edge=_waits(worst),
        engine=worst.evidence,
        law=fit_step_law([series for record in stages.counting for series in by_engine(record.samples)]),
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


def judge(evidence: EdgeEvidence) -> Cause:
    """Say which cause explains the evidence best."""
    misses, engine = evidence.misses, evidence.engine
    if misses.rejected > misses.missed / 2:
        return "admission_limit"
    if _preempts(engine) and _kv_full(engine):
        return "kv_cache"
    if misses.tpot > misses.ttft:
        slower = _more(evidence.edge.tpot, evidence.idle.tpot)
        outside = _more(evidence.edge.tpot_outside, evidence.idle.tpot_outside)
        if slower > 0 and outside > slower / 2:
            return "front_end"
        return "prefill_compute" if _prompts_hold_up(evidence) else "decode_speed"
    queue = _more(evidence.edge.queue, evidence.idle.queue)
    prefill = _more(evidence.edge.prefill, evidence.idle.prefill)
    outside = _more(evidence.edge.outside, evidence.idle.outside)
    if outside > max(queue, prefill) or (engine.get("front_end_cpu") or 0.0) > _FRONT_END_BUSY:
        return "front_end"
    return _what_the_queue_waits_for(evidence) if queue > prefill else "prefill_compute"


def _what_the_queue_waits_for(evidence: EdgeEvidence) -> Cause:
    engine = evidence.engine
    if _kv_full(engine):
        return "kv_cache"
    return "batch_slots" if _at_plateau(engine) and not _prompts_fill_the_steps(evidence) else "prefill_compute"


def _more(edge: float | None, idle: float | None) -> float:
    return max(0.0, (edge or 0.0) - (idle or 0.0))


def _prompts_hold_up(evidence: EdgeEvidence) -> bool:
    """Whether steps at the edge are longer for the prompts in them, more than for the other outputs."""
    law, per_step = evidence.law, evidence.engine.get("steps_per_s")
    if law is None or not per_step:
        return False
    prompts = law.prompt_token_s * evidence.engine["prompt_tokens_per_s"] / per_step
    outputs = law.output_token_s * max(0.0, evidence.engine["output_tokens_per_s"] / per_step - 1)
    return bool(prompts > outputs)


def _prompts_fill_the_steps(evidence: EdgeEvidence) -> bool:
    """Whether the steps' time goes into prompts: then a batch that stays at one size is what prompts leave room for."""
    engine, law = evidence.engine, evidence.law
    prompts, outputs = engine.get("prompt_tokens_per_s", 0.0), engine.get("output_tokens_per_s", 0.0)
    if law is not None and engine.get("steps_per_s"):
        return law.shares(engine["steps_per_s"], prompts, outputs)[1] > 0.5
    # Too short a search for a law: steps of many prompt tokens that take much longer than under light load.
    tokens, running = engine.get("tokens_per_step") or 0.0, engine.get("running_mean_of_one", 0.0)
    longer = (evidence.edge.tpot or 0.0) > _MUCH_LONGER * (evidence.idle.tpot or math.inf)
    return bool(longer and tokens > _MANY_PROMPT_TOKENS * running)


def _preempts(engine: Mapping[str, Any]) -> bool:
    return bool(engine.get("preemptions", 0.0) > _PREEMPTED * max(engine.get("requests", 0.0), 1.0))


def _kv_full(engine: Mapping[str, Any]) -> bool:
    queued: list[float] = engine.get("kv_usage_while_queued") or []
    if queued:
        return sum(usage >= _FULL for usage in queued) > len(queued) / 2
    return bool(engine.get("kv_usage_max", 0.0) >= _FULL)


def _at_plateau(engine: Mapping[str, Any]) -> bool:
    """Whether the batch stays at its largest while requests wait: it is full."""
    queued: list[float] = engine.get("running_while_queued") or []
    return bool(queued) and sum(running >= _PLATEAU * max(queued) for running in queued) > len(queued) / 2


def describe(cause: Cause, evidence: EdgeEvidence) -> list[str]:
    """Return what speaks for the cause, in lines with their figures."""
    misses, engine, edge, idle = evidence.misses, evidence.engine, evidence.edge, evidence.idle
    lines = [
        f"of {misses.requests} requests at the edge {misses.missed} missed: TTFT {misses.ttft}, TPOT {misses.tpot}"
        + (f", E2E {misses.e2e}" if misses.e2e else "")
        + f", rejected {misses.rejected}, failed {misses.failed}"
    ]
    if evidence.rate is not None:
        lines.append(f"all that follows: at {evidence.rate:.2f} requests/s, where most missed")
    if edge.queue is not None and edge.prefill is not None and edge.outside is not None:
        lines.append(
            f"until the first token, mean: {_ms(edge.queue)} in the queue, {_ms(edge.prefill)} prefill, "
            f"{_ms(edge.outside)} outside the engine (under light load {_ms(idle.queue)}, {_ms(idle.prefill)}, "
            f"{_ms(idle.outside)})"
        )
    if edge.tpot is not None and idle.tpot is not None:
        lines.append(f"time per output token, mean: {_ms(edge.tpot)} (under light load {_ms(idle.tpot)})")
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
    if engine and evidence.law is not None and engine["steps_per_s"]:
        law = evidence.law
        shares = law.shares(engine["steps_per_s"], engine["prompt_tokens_per_s"], engine["output_tokens_per_s"])
        lines.append(
            f"of the steps' time {shares[1]:.0%} is for prompts, {shares[2]:.0%} for outputs, {shares[0]:.0%} for the "
            f"steps themselves (fitted: {_ms(law.prompt_token_s)} a prompt token, {_ms(law.output_token_s)} an output "
            f"token, {_ms(law.step_s)} a step)"
        )
    if cause == "batch_slots":
        lines.append("max_num_seqs is not among the engine's metrics: the limit is read off the plateau")
    return lines


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.3g} ms"


def _verdict(cause: Cause, lines: list[str], evidence: EdgeEvidence, cache_config: Mapping[str, str]) -> dict[str, Any]:
    setting, reason = NEXT[cause](evidence.engine, cache_config, evidence.misses)
    return {"cause": cause, "evidence": lines, "next": {"setting": setting, "reason": reason}}
