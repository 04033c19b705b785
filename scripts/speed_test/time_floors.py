"""Lower bounds of the time of any implementation, independent of its batching.

- bytes / measured memory bandwidth: each step reads all weights once (of the embedding table one row per token only),
  and each new token reads the keys and values before it. Steps: the longest output's tokens.
- operations / measured rate of a large matrix product: two per weight and token (without attention, so slightly too
  low), for the output layer only on generated tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speed_test.work import Work


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model that decide its speed. `kv_bytes` is for one token."""

    body_weights: int
    head_weights: int
    body_bytes: float
    head_bytes: float
    kv_bytes: int


def floors(work: Work, model: ModelShape, bandwidth: float, rate: float) -> tuple[float, float]:
    """(bytes, operations): lower bounds of the time in seconds; formulas in the module's docstring."""
    steps = max(request.output_len for request in work.requests)
    # Token number i of an answer reads the prompt and the i tokens before it.
    read = sum(r.output_len * len(r.prompt) + r.output_len * (r.output_len - 1) // 2 for r in work.requests)
    moved = steps * (model.body_bytes + model.head_bytes) + read * model.kv_bytes
    # The last generated token is never an input.
    body = sum(request.tokens - 1 for request in work.requests)
    operations = 2 * (body * model.body_weights + work.output_tokens * model.head_weights)
    return moved / bandwidth, operations / rate
