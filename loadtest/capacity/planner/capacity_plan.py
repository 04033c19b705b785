"""Find the number of hosts that keep the SLO in every window of a recorded load, with its uncertainty."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from loadtest.capacity.planner.fleet_simulation import ForecastWindow, simulate_fleet
from loadtest.input_error import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtest.capacity.answer import SloLimits
    from loadtest.capacity.planner.fleet_simulation import ForecastLoad
    from loadtest.capacity.simulation.engine_spec import EngineSpec

# Ratio of the load's mean tokens to those of the measurement beyond which the plan warns.
_OTHER_SHAPE = 1.3
_MOST_BOXES = 4096
_FEWEST_IN_WINDOW = 20  # requests: in a window with fewer, a single miss is more than the SLO allows


@dataclass(frozen=True, slots=True)
class Box:
    """One measured host: its twin at `mid`, and its capacity in requests/s."""

    twin: EngineSpec
    limits: SloLimits
    objective: float
    low: float
    mid: float
    high: float
    prompt_tokens: float  # mean, as measured
    output_tokens: float


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """`boxes` at the middle of the capacity's interval; `fewest` at its upper end, `most` at its lower end."""

    fewest: int
    boxes: int
    most: int
    peak_rate: float  # requests/s in the busiest window
    window_s: float
    windows: tuple[ForecastWindow, ...]  # with `boxes`
    with_most: tuple[ForecastWindow, ...]  # with `most` boxes at the lower end
    tried: tuple[tuple[str, int, float], ...]  # speed, boxes, share of good requests in the worst window
    notes: tuple[str, ...]


def make_plan(
    box: Box, load: ForecastLoad, window_s: float, progress: Callable[[str], None] = lambda _: None
) -> CapacityPlan:
    """Find the numbers of boxes. Raises InputError if no number keeps the SLO, or no window can be judged."""
    counts = list(Counter(time // window_s for time in load.times).values())
    if max(counts) < _FEWEST_IN_WINDOW:
        raise InputError(
            "--window",
            f"none of {window_s:g} s has {_FEWEST_IN_WINDOW} requests, and fewer cannot be judged",
            "give a larger one, or a trace of more requests",
        )
    peak = max(counts) / window_s
    tried: dict[tuple[str, int], list[ForecastWindow]] = {}

    def find(speed: str, rate: float) -> int:
        spec = box.twin.slower(box.mid / rate)

        def worst(boxes: int) -> float:
            if (speed, boxes) not in tried:
                tried[speed, boxes] = simulate_fleet(spec, boxes, load, box.limits, window_s)
                progress(f"{speed}: {boxes} boxes, worst window {_worst(tried[speed, boxes]):.1%} good")
            return _worst(tried[speed, boxes])

        return _fewest(worst, box.objective, max(1, math.ceil(0.7 * peak / rate)))

    boxes = find("mid", box.mid)
    fewest, most = find("high", box.high), find("low", box.low)
    return CapacityPlan(
        fewest=min(fewest, boxes),
        boxes=boxes,
        most=max(most, boxes),
        peak_rate=peak,
        window_s=window_s,
        windows=tuple(tried["mid", boxes]),
        with_most=tuple(tried["low", most]),
        tried=tuple((speed, count, _worst(windows)) for (speed, count), windows in sorted(tried.items())),
        notes=tuple(_notes(box, load, counts)),
    )


def _worst(windows: list[ForecastWindow]) -> float:
    """Return the share of good requests in the worst window with enough requests; there is at least one."""
    return min(window.share for window in windows if window.requests >= _FEWEST_IN_WINDOW)


def _fewest(worst: Callable[[int], float], objective: float, start: int) -> int:
    """Return the smallest number that keeps the objective, by galloping and bisection from `start`."""
    missed, met = 0, start
    while worst(met) < objective:
        missed, met = met, max(met + 1, round(met * 1.4))
        if met > _MOST_BOXES:
            raise InputError(
                "--trace",
                f"with {missed} boxes only {worst(missed):.1%} of the requests are good in the worst window: "
                "single requests are too long for the SLO, whatever the number of boxes",
                "give requests that one box can serve, or a looser SLO",
            )
    while met - missed > 1:
        middle = (missed + met) // 2
        missed, met = (missed, middle) if worst(middle) >= objective else (middle, met)
    return met


def _notes(box: Box, load: ForecastLoad, counts: list[int]) -> list[str]:
    """Return the warnings; `counts` are the requests of each window that has any."""
    notes = []
    if few := sum(count < _FEWEST_IN_WINDOW for count in counts):
        notes.append(
            f"{few} of {len(counts)} windows have fewer than {_FEWEST_IN_WINDOW} requests and were not judged: "
            "a larger --window takes them in"
        )
    for what, measured, recorded in (
        ("prompts", box.prompt_tokens, mean(load.prompts)),
        ("outputs", box.output_tokens, mean(load.outputs)),
    ):
        if not 1 / _OTHER_SHAPE <= recorded / measured <= _OTHER_SHAPE:
            notes.append(
                f"the recorded {what} have {recorded:.0f} tokens on average, the capacity was measured with "
                f"{measured:.0f}: measure again with lengths like those recorded"
            )
    return notes
