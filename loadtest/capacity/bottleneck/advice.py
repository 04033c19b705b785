"""The setting to try next, by cause; none where it could change nothing."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtest.capacity.bottleneck.saturation import SaturationEvidence
    from loadtest.capacity.stage import Cause

Advice = tuple[str, str]  # (setting, reason)

_STEP_LIMIT = "--max-num-batched-tokens"
# vLLM's smallest default of that limit (vllm/engine/arg_utils.py, get_batch_defaults).
SMALLEST_STEP_LIMIT = 2048
# Share of the limit that the largest steps have to reach before another limit would change anything.
_NEAR_LIMIT = 0.5
# Share of a core from which on a second process of the API server has something to take over.
_FRONT_END_USED = 0.5


def read_step_limit(arguments: str) -> int | None:
    """Return the tokens a step may have by vLLM's command line `arguments`; None if they do not say."""
    try:
        words = shlex.split(arguments)
    except ValueError:
        return None
    for place, word in enumerate(words):
        name, _, value = word.partition("=")
        if name == _STEP_LIMIT:
            value = value or (words[place + 1] if place + 1 < len(words) else "")
            return int(value) if value.isdecimal() else None
    return None


def largest_step(evidence: SaturationEvidence) -> float:
    """Return the tokens of the largest steps; their mean where no histogram tells."""
    return evidence.engine.get("largest_step") or evidence.engine.get("tokens_per_step") or 0.0


def step_limit_binds(evidence: SaturationEvidence) -> bool:
    """Return whether steps come near the limit of tokens a step."""
    return largest_step(evidence) >= _NEAR_LIMIT * (evidence.facts.step_limit or SMALLEST_STEP_LIMIT)


def _batch_slots(evidence: SaturationEvidence) -> Advice:
    slots = round(evidence.engine.get("running_max_of_one", 0.0))  # --max-num-seqs is set for each engine
    return (
        f"VLLM_EXTRA_ARGS=--max-num-seqs={2 * slots}",
        f"requests wait while {slots} run and the KV cache has room: a larger batch costs each step little",
    )


def _kv_cache(evidence: SaturationEvidence) -> Advice:
    reason = "requests wait for blocks, or lose them and are computed twice"
    if evidence.facts.on_cpu:
        return "CPU_KV_CACHE_GIB: twice as much", reason
    return "GPU_MEMORY_UTILIZATION, up to 0.95; then VLLM_EXTRA_ARGS=--kv-cache-dtype=fp8", reason


def _prefill(evidence: SaturationEvidence) -> Advice | None:
    if not step_limit_binds(evidence):
        return None
    misses = evidence.misses
    if misses.tpot > misses.ttft:
        reason = (
            "the steps are long because prompts are read in them, while others wait for their next token; smaller "
            "steps hold them up less, as long as TTFT has room. If the prompts have a beginning in common, the prefix "
            "cache saves it"
        )
        return f"VLLM_EXTRA_ARGS={_STEP_LIMIT}, half as many", reason
    per_step = evidence.engine.get("tokens_per_step") or 0.0
    reason = (
        f"prompts wait for their share of the steps ({per_step:.0f} tokens each); larger steps read more of them at "
        "once, as long as TPOT has room. If the prompts have a beginning in common, the prefix cache saves it"
    )
    return f"VLLM_EXTRA_ARGS={_STEP_LIMIT}, twice as many", reason


def _decode(evidence: SaturationEvidence) -> Advice:
    reason = "each step is too slow for the time per output token; fewer bytes to read for each token make it faster"
    if evidence.saturated.tpot is not None and evidence.saturated.tpot > 1.2 * (evidence.idle.tpot or 0.0):
        reason += ". VLLM_EXTRA_ARGS=--max-num-seqs keeps the batch at what meets the SLO"
    if evidence.facts.on_cpu:
        return "a smaller or quantized MODEL_ID", reason
    return "a quantized MODEL_ID (AWQ, FP8), or TENSOR_PARALLEL_SIZE", reason


def _front_end(evidence: SaturationEvidence) -> Advice | None:
    if (evidence.engine.get("front_end_cpu") or 0.0) < _FRONT_END_USED:
        return None
    return (
        "VLLM_EXTRA_ARGS=--api-server-count=2",
        "the time passes in the API server's one process (templates, tokens, streams), not in the engine",
    )


def _admission(_evidence: SaturationEvidence) -> Advice:
    return (
        "MAX_CONCURRENT_REQUESTS, larger",
        "requests are turned away that would still have met the SLO",
    )


def _client(_evidence: SaturationEvidence) -> Advice:
    return "LOCUST_WORKERS (or --processes), one more", "the load generator could not send more; the engine could"


def _host_cpu(_evidence: SaturationEvidence) -> Advice:
    return (
        "cores that nothing else uses",
        "no setting of the engine gives it the cores that others use: end what else runs there, or move the engine",
    )


def _nothing(_evidence: SaturationEvidence) -> None:
    return None


NEXT: dict[Cause, Callable[[SaturationEvidence], Advice | None]] = {
    "batch_slots": _batch_slots,
    "kv_cache": _kv_cache,
    "prefill_compute": _prefill,
    "decode_speed": _decode,
    "front_end": _front_end,
    "admission_limit": _admission,
    "client": _client,
    "host_cpu": _host_cpu,
    "requests_failed": _nothing,
    "unknown": _nothing,
}
