"""Recorded arrival times, as they were or at another speed."""

import math
from collections.abc import Iterable, Iterator

from loadtest.input_error import InputError


def replay(times: Iterable[float], *, speed: float = 1.0) -> Iterator[float]:
    """Yield each recorded time, in seconds since the first, divided by `speed`: 2 replays twice as fast.

    Raises InputError, at once, for a speed that is not a positive number.
    """
    if not (math.isfinite(speed) and speed > 0):
        raise InputError("--trace-speed", f"{speed:g} is not a speed", "give a factor above 0; 1 is as recorded")
    return (time / speed for time in times)
