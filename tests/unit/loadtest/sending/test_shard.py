from itertools import count, islice

import pytest

from loadtest.sending.shard import shard


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_each_item_goes_to_exactly_one_worker(workers: int) -> None:
    parts = [list(shard(range(100), worker, workers)) for worker in range(workers)]
    assert sorted(item for part in parts for item in part) == list(range(100))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_an_endless_sequence_is_read_only_as_far_as_needed() -> None:
    assert list(islice(shard(count(), 1, 4), 3)) == [1, 5, 9]


@pytest.mark.parametrize(("worker", "workers"), [(-1, 2), (2, 2), (0, 0)])
def test_a_worker_that_does_not_exist_is_refused(worker: int, workers: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        shard([1], worker, workers)
