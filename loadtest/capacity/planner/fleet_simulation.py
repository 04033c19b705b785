"""Simulate a recorded load on several hosts behind a round-robin router."""

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
    """Requests in order of time: seconds since the first, prompt tokens, output tokens."""

    times: Items[float]
    prompts: Items[int]
    outputs: Items[int]


@dataclass(frozen=True, slots=True)
class ForecastWindow:
    """Requests due in one window. Times in seconds."""

    start: float
    requests: int
    good: int
    ttft_p95: float | None

    @property
    def share(self) -> float:
        """Share of good requests; 1 without any."""
        return self.good / self.requests if self.requests else 1.0


def simulate_fleet(
    spec: EngineSpec, boxes: int, load: ForecastLoad, limits: SloLimits, window_s: float
) -> list[ForecastWindow]:
    """Return every window of the load, with each `boxes`-th request on the same box; oversized requests miss."""
    count = int(load.times[-1] // window_s) + 1
    requests, good = [0] * count, [0] * count
    waits: list[list[float]] = [[] for _ in range(count)]
    for box in range(boxes):
        simulated = []
        for number in range(box, len(load.times), boxes):
            prompt, output = load.prompts[number], load.outputs[number]
            requests[int(load.times[number] // window_s)] += 1
            if spec.blocks(prompt + output) <= spec.kv_blocks:
                simulated.append(SimulatedRequest(load.times[number], prompt, output))
        for request in run(SimulatedEngine(spec, box), simulated):
            window = int(request.arrived // window_s)
            good[window] += limits.met(request)
            if not request.rejected:
                waits[window].append(request.ttft)
    return [
        ForecastWindow(number * window_s, requests[number], good[number], _p95(waits[number]))
        for number in range(count)
    ]


def _p95(values: list[float]) -> float | None:
    values.sort()
    return values[max(0, -(-95 * len(values) // 100) - 1)] if values else None
