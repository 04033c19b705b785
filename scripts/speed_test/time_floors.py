"""Two floors under the time of any implementation, whatever its batching.

- bytes: every step reads all weights once (without the embedding table, of which it takes a row a token), and every new
  token reads the keys and values before it. Steps: as many as the longest output. Over the measured memory bandwidth.
- operations: two for each weight and token (without attention, so it is a little too low), the output layer only for
  tokens that are made. Over the measured rate of a large matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speed_test.work import Work


@dataclass(frozen=True)
class ModelShape:
    """The model in numbers that decide its speed. `kv_bytes` is for one token."""

    body_weights: int
    head_weights: int
    body_bytes: float
    head_bytes: float
    kv_bytes: int


def floors(work: Work, model: ModelShape, bandwidth: float, rate: float) -> tuple[float, float]:
    """(bytes, operations): seconds below which nothing can do the work; see the module's text."""
    steps = max(request.output_len for request in work.requests)
    # Token number i of an answer reads the prompt and the i tokens before it.
    read = sum(r.output_len * len(r.prompt) + r.output_len * (r.output_len - 1) // 2 for r in work.requests)
    moved = steps * (model.body_bytes + model.head_bytes) + read * model.kv_bytes
    # The last token made is never fed back.
    body = sum(request.tokens - 1 for request in work.requests)
    operations = 2 * (body * model.body_weights + work.output_tokens * model.head_weights)
    return moved / bandwidth, operations / rate
