"""Which request a process sends when: its share of the request numbers, in open loop with their due times."""

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

# Numbers of a process that joined a closed-loop run after it was dealt out: far from everybody else's.
_LATE_BLOCK = 1 << 40


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """One of the loads that follow each other in a search; all processes together send it.

    `seed` is that of the arrivals. Requests are numbered from `first_request`, so that no prompt of an earlier load
    comes again. `users` send in closed loop; they start one after the other over `users_over_s`, the time of a request,
    so that they do not go in step.
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
        """The users of process `number` of `processes`."""
        return self.users // processes + (number < self.users % processes)

    def to_wire(self) -> dict[str, Any]:
        """Return what msgpack can carry; `from_wire` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Read what `to_wire` made."""
        return cls(**{**wire, "pacing": Pacing(**wire["pacing"])})


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
