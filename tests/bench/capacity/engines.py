"""Engines of known capacity: one kind for each cause, and one that no twin can fit.

Over HTTP their requests are a little different: `SERVED`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from loadtest.capacity.answer import SloLimits
from loadtest.capacity.simulation.engine_spec import EngineSpec
from loadtest.capacity.simulation.simulated_engine import SimulatedEngine
from loadtest.workload.lengths import Lengths, Sampler
from tests.rig.simulated_engine.engine_kinds import KINDS, Kind, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


class StallingEngine(SimulatedEngine):
    """Engine that stalls now and then, like on a busy host, and whose long prompts cost twice as much.

    The twin has neither: what it cannot explain must end up in the interval.
    """

    def _step_s(self, prefill: int) -> float:
        step = super()._step_s(prefill) * (1 + (prefill / 1000) ** 2)
        if self._random.random() < step / 8.0:  # every 8 s
            step += self._random.expovariate(1 / 0.15)
        return step


UNLIKE = Kind(
    "unlike_its_twin",
    "prefill_compute",
    EngineSpec(max_num_seqs=12, step_s=0.015, prefill_token_s=30e-6, sequence_s=0.3e-3, noise=0.3),
    Tokens(400, 200, 20),
    Tokens(20, 10, 2),
    SloLimits(ttft_s=0.6, tpot_s=0.06),
)
ENGINES: dict[str, tuple[Kind, Callable[[EngineSpec, int], SimulatedEngine]]] = {
    **{name: (kind, SimulatedEngine) for name, kind in KINDS.items()},
    UNLIKE.name: (UNLIKE, StallingEngine),
}


@dataclass(frozen=True, slots=True)
class SentTokens(Tokens):
    """Tokens as the load generator draws them, truncated on both sides, plus those of the message's JSON."""

    added: int = 0

    def draw(self, random: Random) -> int:
        """Draw a number of tokens."""
        return _sampler(self.mean, self.std).sample(random.random()) + self.added


@lru_cache
def _sampler(mean: float, std: float) -> Sampler:
    return Lengths(mean, std).sampler()


JSON_WORDS = 3  # the served engine counts words: [{"role": "user", "content": ...
SERVED: dict[str, tuple[Kind, Callable[[EngineSpec, int], SimulatedEngine]]] = {
    f"{name} over HTTP": (
        replace(
            kind,
            prompt=SentTokens(kind.prompt.mean, kind.prompt.std, added=JSON_WORDS),
            output=SentTokens(kind.output.mean, kind.output.std),
        ),
        SimulatedEngine,
    )
    for name, kind in KINDS.items()
}
KNOWN = ENGINES | SERVED
