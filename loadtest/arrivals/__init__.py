"""When requests are due: seeded, absolute, and the same for every worker."""

from loadtest.arrivals.replay import replay
from loadtest.arrivals.schedule import ArrivalProcess, schedule
from loadtest.arrivals.shard import shard

__all__ = ["ArrivalProcess", "replay", "schedule", "shard"]
