"""How many boxes keep the SLO in every window of a recorded load, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from loadtest.capacity.planner.fleet import Window, simulate_fleet

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtest.capacity.answer import Limits
    from loadtest.capacity.planner.fleet import Load
    from loadtest.capacity.simulation.spec import EngineSpec

# Tokens of the load that are so much more or fewer than those that the capacity was measured with are beyond what the
# measurement says.
_OTHER_SHAPE = 1.3
_MOST_BOXES = 4096
_FEWEST_IN_WINDOW = 20  # requests: in a window with fewer, a single miss is more than the SLO allows


@dataclass(frozen=True, slots=True)
class Box:
    """One measured box: its twin at the middle of the interval, and the interval in requests/s."""

    twin: EngineSpec
    limits: Limits
    objective: float
    low: float
    mid: float
    high: float
    prompt_tokens: float  # mean, as measured
    output_tokens: float


@dataclass(frozen=True, slots=True)
class Plan:
    """`boxes` at the middle of the capacity's interval; `fewest` if a box is at its upper end, `most` at its lower."""

    fewest: int
    boxes: int
    most: int
    peak_rate: float  # requests/s in the busiest window
    window_s: float
    windows: tuple[Window, ...]  # with `boxes`
    with_most: tuple[Window, ...]  # with `most` boxes, each as slow as the interval allows
    tried: tuple[tuple[str, int, float], ...]  # speed, boxes, share of good requests in the worst window
    notes: tuple[str, ...]


def make_plan(box: Box, load: Load, window_s: float, progress: Callable[[str], None] = lambda _: None) -> Plan:
    """Find the numbers of boxes. Raises ValueError when no number keeps the SLO."""
    counts = [0] * (int(load.times[-1] // window_s) + 1)
    for time in load.times:
        counts[int(time // window_s)] += 1
    peak = max(counts) / window_s
    tried: dict[tuple[str, int], list[Window]] = {}

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
    return Plan(
        fewest=min(fewest, boxes),
        boxes=boxes,
        most=max(most, boxes),
        peak_rate=peak,
        window_s=window_s,
        windows=tuple(tried["mid", boxes]),
        with_most=tuple(tried["low", most]),
        tried=tuple((speed, count, _worst(windows)) for (speed, count), windows in sorted(tried.items())),
        notes=tuple(_notes(box, load)),
    )


def _worst(windows: list[Window]) -> float:
    """The share of good requests in the worst window that has enough of them."""
    return min((window.share for window in windows if window.requests >= _FEWEST_IN_WINDOW), default=1.0)


def _fewest(worst: Callable[[int], float], objective: float, start: int) -> int:
    """The smallest number that keeps the objective: gallop, then halve."""
    missed, met = 0, start
    while worst(met) < objective:
        missed, met = met, max(met + 1, round(met * 1.4))
        if met > _MOST_BOXES:
            raise ValueError(
                f"with {missed} boxes only {worst(missed):.1%} of the requests are good in the worst window: "
                "single requests are too long for the SLO, whatever the number of boxes"
            )
    while met - missed > 1:
        middle = (missed + met) // 2
        missed, met = (missed, middle) if worst(middle) >= objective else (middle, met)
    return met


def _notes(box: Box, load: Load) -> list[str]:
    notes = []
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
