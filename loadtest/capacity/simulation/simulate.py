"""Arrivals through a simulated engine, in virtual time."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from loadtest.capacity.simulation.engine_spec import SimulatedRequest
    from loadtest.capacity.simulation.simulated_engine import SimulatedEngine


def run(engine: SimulatedEngine, arrivals: Iterable[SimulatedRequest]) -> Iterator[SimulatedRequest]:
    """Yield each request of `arrivals`, which come in order of time, when it has ended or was rejected."""
    coming = iter(arrivals)
    following = next(coming, None)
    while True:
        if engine.begin_step():
            until = engine.step_ends
        elif following is not None:
            until = following.arrived  # nothing is under way: on to the next arrival
        else:
            return
        while following is not None and following.arrived <= until:
            engine.arrive(following)
            if following.rejected:
                yield following
            following = next(coming, None)
        if engine.step_ends < inf:
            yield from engine.end_step().ended
