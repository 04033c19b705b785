"""Due times of an open loop, made from a seed or replayed from a recording, and their split over workers.

Every worker computes the whole schedule and takes its share (`shard`). Seeding each worker on its own instead would
repeat the same gaps on all of them: bursts as large as the number of workers, which is another arrival process.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate, count, islice, repeat, starmap
from random import Random
from typing import Literal, TypeVar

from loadtest.input_error import InputError

ArrivalProcess = Literal["constant", "poisson", "gamma"]
Item = TypeVar("Item")


def schedule(process: ArrivalProcess, *, rate: float, seed: int, burstiness: float = 1.0) -> Iterator[float]:
    """Yield, without end, the due times of a test in seconds since its start, in order.

    `rate` is the mean number of requests/s of the whole test.

    - constant: request i is due at i/rate.
    - poisson: independent exponential gaps of mean 1/rate.
    - gamma: independent gamma gaps of shape `burstiness` and mean 1/rate, so their coefficient of variation is
      1/sqrt(burstiness): below 1 is burstier than Poisson, 1 is Poisson, above 1 is more even. The same as
      `vllm bench serve --burstiness`.

    The same arguments give the same times on every machine. Raises InputError, at the call and not at the first time,
    for a rate or burstiness that is not a positive number and for an unknown process.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise InputError("--rate", f"{rate:g} is not a rate", "give requests/s above 0, such as 2.5")
    if not (math.isfinite(burstiness) and burstiness > 0):
        raise InputError(
            "--burstiness",
            f"{burstiness:g} is not a shape",
            "give a number above 0; 1 is the same as poisson",
        )
    if process == "constant":
        return (index / rate for index in count())  # divided, not added up: rounding does not drift
    random = Random(f"arrivals:{seed}")  # noqa: S311  # a repeatable schedule is the point
    if process == "poisson":
        return accumulate(starmap(random.expovariate, repeat((rate,))))
    if process == "gamma":
        return accumulate(starmap(random.gammavariate, repeat((burstiness, 1 / (rate * burstiness)))))
    raise InputError("--arrival", f"'{process}' is unknown", "use closed, constant, poisson or gamma")


def replay(times: Iterable[float], *, speed: float = 1.0) -> Iterator[float]:
    """Yield each recorded time, in seconds since the first, divided by `speed`: 2 replays twice as fast.

    Raises InputError, at the call, for a speed that is not a positive number.
    """
    if not (math.isfinite(speed) and speed > 0):
        raise InputError("--trace-speed", f"{speed:g} is not a speed", "give a factor above 0; 1 is as recorded")
    return (time / speed for time in times)


def shard(items: Iterable[Item], worker: int, workers: int) -> Iterator[Item]:
    """Yield every `workers`-th item, starting at item `worker` (0 and up).

    The shards of all workers together hold every item exactly once. Of `enumerate(schedule(...))`, each item is
    (request number, due time). Raises ValueError unless 0 <= worker < workers.
    """
    if not 0 <= worker < workers:
        raise ValueError(f"worker {worker} of {workers} workers: must be 0 to {workers - 1}")
    return islice(items, worker, None, workers)
