"""The setting to try next, by cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadtest.capacity.stage import Cause
    from loadtest.capacity.stage_record import Misses

Advice = tuple[str, str]  # (setting, reason)


def _batch_slots(engine: Mapping[str, Any], _cache: Mapping[str, str], _misses: Misses) -> Advice:
    slots = round(engine.get("running_max_of_one", 0.0))  # --max-num-seqs is set for each engine
    return (
        f"VLLM_EXTRA_ARGS=--max-num-seqs={2 * slots}",
        f"requests wait while {slots} run and the KV cache has room: a larger batch costs each step little",
    )


def _kv_cache(_engine: Mapping[str, Any], cache: Mapping[str, str], _misses: Misses) -> Advice:
    reason = "requests wait for blocks, or lose them and are computed twice"
    if cache.get("kv_cache_memory_bytes"):
        return "CPU_KV_CACHE_GIB: twice as much", reason
    return "GPU_MEMORY_UTILIZATION, up to 0.95; then VLLM_EXTRA_ARGS=--kv-cache-dtype=fp8", reason


def _prefill(engine: Mapping[str, Any], _cache: Mapping[str, str], misses: Misses) -> Advice:
    if misses.tpot > misses.ttft:
        reason = (
            "the steps are long because prompts are read in them, while others wait for their next token; smaller "
            "steps hold them up less, as long as TTFT has room. If the prompts have a beginning in common, the prefix "
            "cache saves it"
        )
        return "VLLM_EXTRA_ARGS=--max-num-batched-tokens, half as many", reason
    per_step = engine.get("tokens_per_step") or 0.0
    reason = (
        f"prompts wait for their share of the steps ({per_step:.0f} tokens each); larger steps read more of them at "
        "once, as long as TPOT has room. If the prompts have a beginning in common, the prefix cache saves it"
    )
    return "VLLM_EXTRA_ARGS=--max-num-batched-tokens, twice as many", reason


def _decode(_engine: Mapping[str, Any], _cache: Mapping[str, str], _misses: Misses) -> Advice:
    reason = (
        "each step is too slow for the time per output token; fewer bytes to read for each token make it faster. "
        "VLLM_EXTRA_ARGS=--max-num-seqs keeps the batch at what meets the SLO"
    )
    return "a quantized MODEL_ID (AWQ, FP8), or TENSOR_PARALLEL_SIZE", reason


def _front_end(_engine: Mapping[str, Any], _cache: Mapping[str, str], _misses: Misses) -> Advice:
    return (
        "VLLM_EXTRA_ARGS=--api-server-count=2",
        "the time passes in the API server's one process (templates, tokens, streams), not in the engine",
    )


def _admission(_engine: Mapping[str, Any], _cache: Mapping[str, str], _misses: Misses) -> Advice:
    return (
        "MAX_CONCURRENT_REQUESTS, larger",
        "requests are turned away that would still have met the SLO",
    )


def _client(_engine: Mapping[str, Any], _cache: Mapping[str, str], _misses: Misses) -> Advice:
    return "LOCUST_WORKERS (or --processes), one more", "the load generator could not send more; the engine could"


NEXT: dict[Cause, Callable[[Mapping[str, Any], Mapping[str, str], Misses], Advice]] = {
    "batch_slots": _batch_slots,
    "kv_cache": _kv_cache,
    "prefill_compute": _prefill,
    "decode_speed": _decode,
    "front_end": _front_end,
    "admission_limit": _admission,
    "client": _client,
}
