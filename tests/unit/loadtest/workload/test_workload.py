import os
import subprocess
import sys
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from loadtest.sending.arrivals import shard
from loadtest.workload import RequestSpec, Workload, WorkloadOptions

DIGEST = """
from hashlib import sha256
from itertools import islice
from pathlib import Path
from loadtest.sending.arrivals import schedule
from loadtest.workload import Workload, WorkloadOptions
workload = Workload.load(WorkloadOptions(
    model="m", endpoint="both", prompt_tokens="90:20", output_tokens="30:9", seed=11,
    tokenizer=Path({model!r}),
))
requests = [workload.request(index) for index in range(100)]
times = list(islice(schedule("gamma", rate=3, burstiness=0.4, seed=11), 100))
print(sha256(repr((requests, times)).encode()).hexdigest())
"""


def load(**options: Any) -> Workload:
    return Workload.load(WorkloadOptions(model="m", **options))


def test_request_is_independent_of_call_order() -> None:
    options: dict[str, Any] = {
        "endpoint": "both",
        "prompt_tokens": "60:20",
        "output_tokens": "30:10",
        "seed": 5,
    }
    one = load(**options)
    forwards = [one.request(index) for index in range(200)]
    order = Random(1).sample(range(200), 200)  # noqa: S311  # a shuffle
    other = load(**options)
    shuffled = {index: other.request(index) for index in order}
    assert [shuffled[index] for index in range(200)] == forwards


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_chat_gets_its_share_of_both(share: float) -> None:
    workload = load(endpoint="both", chat_share=share, seed=3)
    chat = sum(workload.request(index).endpoint == "chat" for index in range(4000))
    # Four standard deviations of a binomial count.
    assert abs(chat - 4000 * share) <= 4 * (4000 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_send_each_request_once(workers: int) -> None:
    def sent_by(worker: int) -> list[RequestSpec]:
        workload = load(endpoint="both", prompt_tokens="20:5", seed=9)
        return [workload.request(index) for index in islice(shard(count(), worker, workers), 400 // workers)]

    together = [spec for worker in range(workers) for spec in sent_by(worker)]
    alone = load(endpoint="both", prompt_tokens="20:5", seed=9)
    assert sorted(together, key=lambda spec: spec.index) == [alone.request(index) for index in range(400)]
    assert len({spec.body for spec in together}) == 400


def test_every_worker_sends_to_both_endpoints() -> None:
    workload = load(endpoint="both", prompt_tokens="20")
    for worker in range(2):
        chats = sum(workload.request(index).endpoint == "chat" for index in range(worker, 4000, 2))
        assert abs(chats - 1000) < 4 * (2000 * 0.25) ** 0.5  # 4 standard deviations of a fair coin


def test_another_seed_gives_other_requests() -> None:
    workloads = [load(seed=seed) for seed in range(5)]
    bodies = {workload.request(index).body for workload in workloads for index in range(50)}
    assert len(bodies) == 250


def test_run_repeats_in_another_process(byte_level_model: Path) -> None:
    def digest(hash_seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", DIGEST.format(model=str(byte_level_model))],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    assert digest("1") == digest("2") != ""
