"""Long runs of a simulated engine: its share of misses, and the rate at which that share is the objective's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

from loadtest.capacity.simulation.engine_spec import SimulatedRequest
from loadtest.capacity.simulation.simulate import run
from loadtest.capacity.simulation.simulated_engine import SimulatedEngine
from loadtest.capacity.statistics.saturation_curve import log_odds
from loadtest.capacity.statistics.shares import split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtest.capacity.answer import Lengths, SearchSettings, SloLimits
    from loadtest.capacity.simulation.engine_spec import EngineSpec

_HALF_SPAN = 0.03  # log rate: simulate on both sides of the crossing and interpolate between them
_SLOPES = (2.0, 150.0)


@dataclass(frozen=True, slots=True)
class Crossing:
    """The rate at which the long-run share of misses is the objective's."""

    rate: float  # requests/s
    slope: float  # change of the log odds of a miss per change of the log rate
    error: float  # standard error of the log odds at `rate`, as the run is finite


def long_run_misses(spec: EngineSpec, limits: SloLimits, lengths: Lengths, rate: float, requests: int) -> list[bool]:
    """Simulate Poisson arrivals of `rate` requests/s; return for each request, in order of its end, whether it missed.

    Lengths are drawn from `lengths`. All rates get the same arrivals, at another speed.
    """

    def arrivals() -> Iterator[SimulatedRequest]:
        random = Random(f"long run:{lengths[:20]}{spec.step_s}")  # noqa: S311  # not for security: repeatable, another one for each engine
        at = 0.0
        while True:
            at += random.expovariate(1.0)
            prompt, output = lengths[int(random.random() * len(lengths))]
            yield SimulatedRequest(at / rate, prompt, output)

    return [not limits.met(sequence) for sequence in run(SimulatedEngine(spec, 0), islice(arrivals(), requests))]


def find_crossing(
    spec: EngineSpec, settings: SearchSettings, lengths: Lengths, *, guess: float, requests: int
) -> Crossing | None:
    """Find the rate at which an engine just meets the objective, with about `requests` simulated; else None."""
    target, limits = log_odds(1 - settings.objective), settings.limits

    def odds(rate: float, count: int) -> tuple[float, float]:
        misses = long_run_misses(spec, limits, lengths, rate, count)
        share = (sum(misses) + 0.5) / (count + 1)
        parts = [sum(misses[start:end]) / (end - start) for start, end in split(count, 20)]
        variance = sum((part - share) ** 2 for part in parts) / (len(parts) - 1) / len(parts)
        return log_odds(share), math.sqrt(variance) / (share * (1 - share))

    rate = _approach(lambda at: odds(at, requests // 8)[0] - target, guess)
    if rate is None:
        return None
    low, low_error = odds(rate * math.exp(-_HALF_SPAN), requests // 2)
    high, high_error = odds(rate * math.exp(_HALF_SPAN), requests // 2)
    slope = min(max((high - low) / (2 * _HALF_SPAN), _SLOPES[0]), _SLOPES[1])
    step = (target - (low + high) / 2) / slope
    # Both sides had the same arrivals, so their errors are correlated.
    return Crossing(rate * math.exp(min(max(step, -0.1), 0.1)), slope, (low_error + high_error) / 2)


def _approach(excess: Callable[[float], float], guess: float) -> float | None:
    """Bracket the root of a rising function of the rate to 3 %; None if there is none within 1000 times `guess`."""
    low = high = guess
    factor = 1.06
    if excess(guess) > 0:
        while excess(low := low / factor) > 0:
            high, factor = low, min(2.0, factor**1.7)
            if low < guess / 1000:
                return None
    else:
        while excess(high := high * factor) <= 0:
            low, factor = high, min(2.0, factor**1.7)
            if high > guess * 1000:
                return None
    while high / low > 1.03:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return math.sqrt(low * high)
