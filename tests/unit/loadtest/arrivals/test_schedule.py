from itertools import islice

import pytest

from loadtest.arrivals import schedule, shard


@pytest.mark.parametrize("process", ["constant", "poisson", "gamma"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_shards_together_are_the_schedule(process: str, workers: int) -> None:
    def whole() -> list[tuple[int, float]]:
        return list(islice(enumerate(schedule(process, rate=50, seed=3, burstiness=0.5)), 4001))  # type: ignore[arg-type]  # parametrised

    shards = [list(shard(whole(), worker, workers)) for worker in range(workers)]
    assert sorted(item for part in shards for item in part) == whole()
