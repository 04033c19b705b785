"""A recorded load on several simulated boxes behind a router that deals requests out in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtest.capacity.simulation.engine_spec import SimulatedRequest
from loadtest.capacity.simulation.simulate import run
from loadtest.capacity.simulation.simulated_engine import SimulatedEngine

if TYPE_CHECKING:
    from collections.abc import Sequence as Items

    from loadtest.capacity.answer import SloLimits
    from loadtest.capacity.simulation.engine_spec import EngineSpec


@dataclass(frozen=True, slots=True)
class ForecastLoad:
    """Requests in order of time: when, in seconds since the first, and how many tokens."""

    times: Items[float]
    prompts: Items[int]
    outputs: Items[int]


@dataclass(frozen=True, slots=True)
class ForecastWindow:
    """What was due in one window of time. Times in seconds."""

    start: float
    requests: int
    good: int
    ttft_p95: float | None

    @property
    def share(self) -> float:
        """Of good requests."""
        return self.good / self.requests if self.requests else 1.0


def simulate_fleet(
    spec: EngineSpec, boxes: int, load: ForecastLoad, limits: SloLimits, window_s: float
) -> list[ForecastWindow]:
    """Return every window of the load, each `boxes`-th request on the same box. What no box can hold misses."""
    count = int(load.times[-1] // window_s) + 1
    requests, good = [0] * count, [0] * count
    waits: list[list[float]] = [[] for _ in range(count)]
    for box in range(boxes):
        sequences = []
        for number in range(box, len(load.times), boxes):
            prompt, output = load.prompts[number], load.outputs[number]
            requests[int(load.times[number] // window_s)] += 1
            if spec.blocks(prompt + output) <= spec.kv_blocks:
                sequences.append(SimulatedRequest(load.times[number], prompt, output))
        for sequence in run(SimulatedEngine(spec, box), sequences):
            window = int(sequence.arrived // window_s)
            good[window] += limits.met(sequence)
            if not sequence.rejected:
                waits[window].append(sequence.ttft)
    return [
        ForecastWindow(number * window_s, requests[number], good[number], _p95(waits[number]))
        for number in range(count)
    ]


def _p95(values: list[float]) -> float | None:
    values.sort()
    return values[max(0, -(-95 * len(values) // 100) - 1)] if values else None
