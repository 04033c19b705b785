"""Engines with one known limit each, to test a capacity search and its diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from loadtest.capacity.answer import SloLimits
from loadtest.capacity.simulation.engine_spec import EngineSpec, SimulatedRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtest.capacity.stage import Cause


@dataclass(frozen=True, slots=True)
class Tokens:
    """Distribution of a number of tokens: normal, at least `least`."""

    mean: int
    std: float = 0.0
    least: int = 1

    def draw(self, random: Random) -> int:
        """Draw a number of tokens."""
        return max(self.least, round(random.gauss(self.mean, self.std))) if self.std else self.mean


@dataclass(frozen=True, slots=True)
class Kind:
    """An engine, its requests and their limits in seconds."""

    name: str
    cause: Cause
    engine: EngineSpec
    prompt: Tokens
    output: Tokens
    limits: SloLimits
    objective: float = 0.95

    def lengths(self) -> list[tuple[int, int]]:
        """Return (prompt tokens, output tokens) of many requests."""
        random = Random("lengths")  # noqa: S311  # as below
        return [(self.prompt.draw(random), self.output.draw(random)) for _ in range(20_000)]

    def arrivals(self, rate: float, seed: int | str) -> Iterator[SimulatedRequest]:
        """Yield requests without end: Poisson arrivals of `rate` requests/s."""
        random = Random(f"requests:{seed}")  # noqa: S311  # repeatable
        at = 0.0
        while True:
            at += random.expovariate(rate)
            yield SimulatedRequest(at, self.prompt.draw(random), self.output.draw(random))


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "batch_slots",
            "batch_slots",
            EngineSpec(max_num_seqs=8, step_s=0.02),
            Tokens(64),
            Tokens(22),
            SloLimits(ttft_s=0.5, tpot_s=0.05),
        ),
        Kind(
            "kv_cache",
            "kv_cache",
            EngineSpec(kv_blocks=160, step_s=0.015, prefill_token_s=10e-6, sequence_s=0.1e-3),
            Tokens(160, 40, 16),
            Tokens(64, 24, 4),
            SloLimits(ttft_s=0.5, tpot_s=0.05),
        ),
        Kind(
            "prefill_compute",
            "prefill_compute",
            EngineSpec(step_s=0.006, prefill_token_s=60e-6, sequence_s=0.1e-3),
            Tokens(900, 300, 100),
            Tokens(8, 3, 1),
            SloLimits(ttft_s=0.5, tpot_s=0.2),
        ),
        Kind(
            "decode_speed",
            "decode_speed",
            EngineSpec(step_s=0.008, prefill_token_s=10e-6, sequence_s=0.9e-3, context_token_s=1e-6),
            Tokens(64, 16, 8),
            Tokens(64, 16, 4),
            SloLimits(ttft_s=1.0, tpot_s=0.03),
        ),
        Kind(
            "front_end",
            "front_end",
            EngineSpec(step_s=0.008, prefill_token_s=5e-6, request_s=0.025, output_token_s=0.2e-3),
            Tokens(128, 32, 8),
            Tokens(32, 8, 4),
            SloLimits(ttft_s=0.4, tpot_s=0.05),
        ),
        Kind(
            "admission_limit",
            "admission_limit",
            EngineSpec(max_num_seqs=16, step_s=0.02, prefill_token_s=10e-6, max_num_queued_reqs=6),
            Tokens(128, 32, 8),
            Tokens(40, 16, 4),
            SloLimits(ttft_s=1.0, tpot_s=0.05),
        ),
    )
}
