"""Splitting one sequence over workers."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def shard(items: Iterable[Item], worker: int, workers: int) -> Iterator[Item]:
    """Yield every `workers`-th item, starting at item `worker` (0 and up).

    The shards of all workers together hold every item exactly once. Give it `enumerate(schedule(...))` to
    get the index of the request that belongs to each due time. Raises ValueError unless 0 <= worker <
    workers.
    """
    if not 0 <= worker < workers:
        raise ValueError(f"worker {worker} of {workers} workers: must be 0 to {workers - 1}")
    return islice(items, worker, None, workers)
