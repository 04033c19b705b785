"""Which request a process sends when: its share of the request numbers, in open loop with their due times."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from loadtest.arrivals import replay, schedule, shard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtest.options import Pacing
    from loadtest.workload import Workload

# Numbers of a process that joined a closed-loop run after it was dealt out: far from everybody else's.
_LATE_BLOCK = 1 << 40


def request_numbers(pacing: Pacing, number: int, processes: int) -> Iterator[int]:
    """Closed loop: the request numbers of process `number` of `processes`, each of the whole test once."""
    most = pacing.max_requests
    if number >= processes:
        return iter(()) if most is not None else itertools.count((1 + number) * _LATE_BLOCK)
    everything = itertools.count() if most is None else iter(range(most))
    return shard(everything, number, processes)


def due_requests(
    pacing: Pacing, workload: Workload, seed: int, number: int, processes: int
) -> Iterator[tuple[int, float]]:
    """Open loop: (request number, due time in seconds since the start) of process `number` of `processes`.

    One schedule for the whole test, of which each process takes its own part. Raises InputError.
    """
    if number >= processes:
        return iter(())
    if pacing.arrival == "trace":
        assert workload.trace is not None  # noqa: S101  # the options were checked for it
        times = replay(workload.trace.times, speed=pacing.trace_speed)
    else:
        assert pacing.rate is not None  # noqa: S101  # the options were checked for it
        assert pacing.arrival != "closed"  # noqa: S101  # closed loop has no due times
        times = schedule(pacing.arrival, rate=pacing.rate, seed=seed, burstiness=pacing.burstiness)
    return shard(enumerate(itertools.islice(times, pacing.max_requests)), number, processes)
