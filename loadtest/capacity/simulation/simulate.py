"""Run arrivals through a simulated engine in virtual time."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from loadtest.capacity.simulation.engine_spec import SimulatedRequest
    from loadtest.capacity.simulation.simulated_engine import SimulatedEngine


def run(engine: SimulatedEngine, arrivals: Iterable[SimulatedRequest]) -> Iterator[SimulatedRequest]:
    """Yield each request of `arrivals` (sorted by time) when it has ended or was rejected."""
    remaining = iter(arrivals)
    following = next(remaining, None)
    while True:
        if engine.begin_step():
            engine.skip_quiet_steps(inf if following is None else following.arrived)
            until = engine.step_ends
        elif following is not None:
            until = following.arrived  # the engine is idle: skip to the next arrival
        else:
            return
        while following is not None and following.arrived <= until:
            engine.arrive(following)
            if following.rejected:
                yield following
            following = next(remaining, None)
        if engine.step_ends < inf:
            yield from engine.end_step().ended
