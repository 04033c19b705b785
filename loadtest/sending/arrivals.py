"""Arrival processes of an open loop: due times of a whole test, from one seed.

Every worker computes the whole schedule and takes its share (`shard`). Seeding each worker on its own
instead would repeat the same gaps on all of them: bursts as large as the number of workers, which is not
the process asked for.
"""

import math
from collections.abc import Iterator
from itertools import accumulate, count, repeat, starmap
from random import Random
from typing import Literal

from loadtest.input_error import InputError

ArrivalProcess = Literal["constant", "poisson", "gamma"]


def schedule(process: ArrivalProcess, *, rate: float, seed: int, burstiness: float = 1.0) -> Iterator[float]:
    """Yield, without end, the due times of a test in seconds since its start, in order.

    `rate` is the mean number of requests/s of the whole test.

    - constant: request i is due at i/rate.
    - poisson: independent exponential gaps of mean 1/rate.
    - gamma: independent gamma gaps of shape `burstiness` and mean 1/rate, so that their coefficient of
      variation is 1/sqrt(burstiness): below 1 is burstier than Poisson, 1 is Poisson, above 1 is more even.
      This is how `vllm bench serve --burstiness` means it.

    The same arguments give the same times on every machine. Raises InputError, at once, for a rate or
    burstiness that is not a positive number and for an unknown process.
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
        return (index / rate for index in count())  # dividing, not adding up, so that rounding does not drift
    random = Random(f"arrivals:{seed}")  # noqa: S311  # a repeatable schedule is the point
    if process == "poisson":
        return accumulate(starmap(random.expovariate, repeat((rate,))))
    if process == "gamma":
        return accumulate(starmap(random.gammavariate, repeat((burstiness, 1 / (rate * burstiness)))))
    raise InputError("--arrival", f"'{process}' is unknown", "use closed, constant, poisson or gamma")
