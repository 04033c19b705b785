"""Limits and costs of a simulated engine, and its requests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Limits under vLLM's names, and costs in seconds.

    One step takes `step_s + prefill_token_s * prompt tokens + sequence_s * running sequences + context_token_s * tokens
    of their contexts`, times a log-normal factor of mean 1. The API server is a separate process that works in
    order, one item at a time: `request_s` for each incoming request, `output_token_s` for each outgoing token.
    """

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    kv_blocks: int = 100_000
    block_size: int = 16  # tokens
    max_num_queued_reqs: int | None = None  # above it, new requests are rejected
    step_s: float = 0.01
    prefill_token_s: float = 0.0
    sequence_s: float = 0.0
    context_token_s: float = 0.0
    noise: float = 0.05  # standard deviation of the logarithm of a step's time
    request_s: float = 0.0
    output_token_s: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError if the engine could not run."""
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError("max_num_batched_tokens must be at least max_num_seqs: every running sequence takes one")
        if min(self.max_num_seqs, self.kv_blocks, self.block_size) < 1 or self.step_s <= 0:
            raise ValueError("max_num_seqs, kv_blocks and block_size must be at least 1, and step_s above 0")

    def slower(self, factor: float) -> EngineSpec:
        """Return the same engine with every cost times `factor`."""
        costs = ("step_s", "prefill_token_s", "sequence_s", "context_token_s", "request_s", "output_token_s")
        return replace(self, **{name: getattr(self, name) * factor for name in costs})

    def holding(self, tokens: int) -> EngineSpec:
        """Return the same engine with KV blocks for at least one request of `tokens`."""
        return replace(self, kv_blocks=max(self.kv_blocks, self.blocks(tokens)))

    def blocks(self, tokens: int) -> int:
        """Return the number of KV blocks that hold `tokens`."""
        return -(-tokens // self.block_size)


@dataclass(slots=True, eq=False)
class SimulatedRequest:
    """One request inside the engine. Times in seconds of the engine's clock; NaN until known."""

    arrived: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0  # of the prompt, found in the prefix cache
    rejected: bool = False
    ready: float = float("nan")  # handed to the scheduler by the API server
    scheduled: float = float("nan")  # first time in a batch
    first_token: float = float("nan")  # left the API server
    last_token: float = float("nan")
    preemptions: int = 0
    data: Any = None  # free for the caller

    # Bookkeeping of the scheduler.
    generated: int = 0  # output tokens, without those since `decoding_since`
    computed: int = 0  # tokens in the KV cache: so far during prefill, at the start of decoding from then on
    decoding_since: int = -1  # step that finished the prompt; -1: not decoding
    epoch: int = field(default=0, repr=False)  # marks the valid entry in the heap of coming ends

    @property
    def ttft(self) -> float:
        """Arrival to first token, seconds."""
        return self.first_token - self.arrived

    @property
    def tpot(self) -> float | None:
        """(last token - first token) / (output tokens - 1); None for a single token."""
        if self.output_tokens < 2:
            return None
        return (self.last_token - self.first_token) / (self.output_tokens - 1)

    @property
    def e2e(self) -> float:
        """Arrival to last token, seconds."""
        return self.last_token - self.arrived
