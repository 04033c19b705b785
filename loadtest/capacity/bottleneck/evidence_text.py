"""The evidence for a cause, as lines with figures; without a cause, also what is excluded."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from loadtest.capacity.bottleneck.advice import SMALLEST_STEP_LIMIT, largest_step, step_limit_binds
from loadtest.capacity.bottleneck.saturation import HOST_FULL
from loadtest.report.run_terminal import failure_text

if TYPE_CHECKING:
    from loadtest.capacity.bottleneck.saturation import SaturationEvidence
    from loadtest.capacity.stage import Cause


def describe(cause: Cause, evidence: SaturationEvidence) -> list[str]:
    """Return the lines for `cause`."""
    misses, saturated, idle = evidence.misses, evidence.saturated, evidence.idle
    lines = [
        f"of {misses.requests} requests at the edge {misses.missed} missed: TTFT {misses.ttft}, TPOT {misses.tpot}"
        + (f", E2E {misses.e2e}" if misses.e2e else "")
        + f", rejected {misses.rejected}, failed {misses.failed}"
    ]
    if cause == "requests_failed":
        lines += [failure_text(dataclasses.asdict(failure)) for failure in evidence.failures]
    if evidence.rate is not None and (evidence.engine or saturated.tpot is not None):
        lines.append(f"all that follows: at {evidence.rate:.2f} requests/s, where most missed")
    if saturated.queue is not None and saturated.prefill is not None and saturated.outside is not None:
        lines.append(
            f"until the first token, mean: {_ms(saturated.queue)} in the queue, {_ms(saturated.prefill)} prefill, "
            f"{_ms(saturated.outside)} outside the engine (under light load {_ms(idle.queue)}, {_ms(idle.prefill)}, "
            f"{_ms(idle.outside)})"
        )
    if saturated.tpot is not None and idle.tpot is not None:
        lines.append(f"time per output token, mean: {_ms(saturated.tpot)} (under light load {_ms(idle.tpot)})")
    lines += _engine(evidence)
    if cause == "batch_slots":
        lines.append("max_num_seqs is not among the engine's metrics: the limit is read off the plateau")
    if cause == "prefill_compute" and not step_limit_binds(evidence):
        limit = evidence.facts.step_limit
        lines.append(
            f"steps have {largest_step(evidence):,.0f} tokens at most, their limit is "
            + (f"{limit:,}" if limit else f"{SMALLEST_STEP_LIMIT:,} or more")
            + ": another limit would change nothing"
        )
    return [*lines, *_excluded(evidence)] if cause == "unknown" else lines


def _engine(evidence: SaturationEvidence) -> list[str]:
    engine = evidence.engine
    if not engine:
        return []
    queued = engine.get("running_while_queued") or []
    plateau = f"; where some waited {min(queued):.0f} to {max(queued):.0f} ran" if queued else ""
    lines = [
        (
            f"running {engine['running_mean']:.1f} (most {engine['running_max']:.0f}), waiting "
            f"{engine['waiting_mean']:.1f} ({engine['waiting_capacity_mean']:.1f} for capacity, "
            f"{engine['waiting_deferred_mean']:.1f} deferred){plateau}"
        ),
        (
            f"KV cache {engine['kv_usage_mean']:.0%} full (most {engine['kv_usage_max']:.0%}), "
            f"{engine['preemptions']:.0f} preemptions, {engine['rejections']:.0f} rejections"
        ),
    ]
    if engine.get("tokens_per_step") is not None:
        lines.append(
            f"{engine['steps_per_s']:.0f} steps/s of {engine['tokens_per_step']:.1f} tokens; "
            f"{engine['prompt_tokens_per_s']:.0f} prompt and {engine['output_tokens_per_s']:.0f} output tokens/s"
        )
    cpu = engine["front_end_cpu"]
    lines.append("API server " + ("tells no CPU" if cpu is None else f"{cpu:.0%} of a core") + f", {_host(evidence)}")
    times, shares = evidence.step_times, evidence.step_shares()
    if times is not None and shares is not None:
        lines.append(
            f"of the steps' time {shares[1]:.0%} is for prompts, {shares[2]:.0%} for outputs, {shares[0]:.0%} for the "
            f"steps themselves (fitted: {_ms(times.prompt_token_s)} a prompt token, {_ms(times.output_token_s)} "
            f"an output token, {_ms(times.step_s)} a step)"
        )
    return lines


def _host(evidence: SaturationEvidence) -> str:
    busy = f"the load generator's box {evidence.engine['host_cpu']:.0%} of all its cores"
    if not evidence.facts.is_here:
        return f"{busy}; that the engine runs there is not known"
    if evidence.others_cpu is None:
        return f"{busy}, where the engine runs too"
    return f"{busy}, where the engine runs too; others used {evidence.others_cpu:.0%} while no request was under way"


def _excluded(evidence: SaturationEvidence) -> list[str]:
    engine, misses = evidence.engine, evidence.misses
    if not engine:
        return ["the server shows no metrics of vLLM at /metrics: nothing tells one cause from another"]
    lines = []
    if not misses.failed and not misses.rejected:
        lines.append("excluded: failed requests")
    if not evidence.kv_full():
        lines.append(f"excluded: the KV cache, {engine['kv_usage_max']:.0%} full at most")
    if not engine.get("running_while_queued"):
        lines.append("excluded: the batch's slots, as no request waited")
    cpu = engine["front_end_cpu"]
    if cpu is not None and cpu < HOST_FULL:
        lines.append(f"excluded: the API server's CPU, {cpu:.0%} of a core")
    if evidence.facts.is_here and engine["host_cpu"] < HOST_FULL:
        lines.append(f"excluded: other programs on the host, {engine['host_cpu']:.0%} of its cores busy")
    if evidence.step_times is None:
        lines.append("not known: the steps' time for prompts and for outputs; a longer search (--budget) may tell")
    return lines


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.3g} ms"
