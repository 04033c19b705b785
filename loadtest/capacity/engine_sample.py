"""One reading of the engines' metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class EngineSample:
    """vLLM's metrics at one moment, summed over its engines; times in seconds, counters since the server started."""

    at: float  # monotonic
    host_cpu: float  # busy share of all cores of the load generator's host since the last sample
    running: float = 0.0  # requests in the batch
    waiting: float = 0.0
    waiting_capacity: float = 0.0  # ... for a batch slot, KV blocks or a share of the step
    waiting_deferred: float = 0.0  # ... for something else
    kv_usage: float = 0.0  # used share of the KV cache's blocks, of the fullest engine
    preemptions: float = 0.0
    rejections: float = 0.0
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0
    steps: float = 0.0
    step_tokens: float = 0.0
    front_end_cpu_s: float = 0.0  # of the API server's process; several processes do not report theirs
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    ttft_s: float = 0.0
    first_tokens: float = 0.0  # requests of which ttft_s is the sum
    ended: float = 0.0  # requests of which queue_s, prefill_s and decode_s are the sums: vLLM counts them at the end
    steps_up_to: Mapping[float, float] = field(default_factory=dict)  # steps by their most tokens, cumulative
    engines: Mapping[str, EngineSample] = field(default_factory=dict)  # each engine's own, by its address
