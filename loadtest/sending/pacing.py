"""Shares of a load: the request numbers of each process, in open loop with their due times."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from loadtest.sending.arrivals import replay, schedule, shard
from loadtest.settings.run_options import Pacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadtest.workload import Workload

# First number of a process that joins a closed-loop run late: far from the numbers of all others.
_LATE_BLOCK = 1 << 40


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """One load of a search, sent by all processes together.

    `seed` is that of the arrivals. Requests are numbered from `first_request`, so that no load repeats a prompt of an
    earlier one. `users` send in closed loop; they start one by one over `users_over_s` seconds, the time of a request,
    so that they do not run in step.
    """

    number: int
    pacing: Pacing
    seed: int
    first_request: int
    users: int = 0
    users_over_s: float = 0.0

    @property
    def first_measured(self) -> int:
        """The number of the first request after the warm-up."""
        return self.first_request + self.pacing.warmup_requests

    def share_of_users(self, number: int, processes: int) -> int:
        """Return the number of users of process `number` of `processes`."""
        return self.users // processes + (number < self.users % processes)

    def to_wire(self) -> dict[str, Any]:
        """Return a form that msgpack can carry; `from_wire` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Read the form of `to_wire`."""
        return cls(**{**wire, "pacing": Pacing(**wire["pacing"])})


def request_numbers(pacing: Pacing, number: int, processes: int) -> Iterator[int]:
    """Return the request numbers of process `number` of `processes` in closed loop.

    The shares of all processes together hold each number once. A process that joins late has number >= `processes`.
    """
    most = pacing.max_requests
    if number >= processes:
        return iter(()) if most is not None else itertools.count((1 + number) * _LATE_BLOCK)
    numbers = itertools.count() if most is None else iter(range(most))
    return shard(numbers, number, processes)


def due_requests(
    pacing: Pacing, workload: Workload, seed: int, number: int, processes: int
) -> Iterator[tuple[int, float]]:
    """Yield (request number, due time in seconds since the start) of process `number` of `processes` in open loop.

    Each process takes its share of one schedule for the whole test; one that joins late has none. Raises InputError.
    """
    if number >= processes:
        return iter(())
    if pacing.arrival == "trace":
        assert workload.trace is not None  # noqa: S101  # checked with the options
        times = replay(workload.trace.times, speed=pacing.trace_speed)
    else:
        assert pacing.rate is not None  # noqa: S101  # checked with the options
        assert pacing.arrival != "closed"  # noqa: S101  # closed loop has no due times
        times = schedule(pacing.arrival, rate=pacing.rate, seed=seed, burstiness=pacing.burstiness)
    return shard(enumerate(itertools.islice(times, pacing.max_requests)), number, processes)
