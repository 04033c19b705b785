from __future__ import annotations

import pytest
from speed_test.time_floors import ModelShape, floors
from speed_test.work import Request, Work

# Qwen2-7B-Instruct in 16 bits: 28 layers, 4 key-value heads of 128.
QWEN = ModelShape(6_525_621_760, 544_997_376, 13_051_243_520, 1_089_994_752, 2 * 28 * 4 * 128 * 2)


def work(*requests: Request) -> Work:
    return Work("m", "gpu", "float16", "auto", None, 1, 1, 256, [], list(requests))


def test_floor_of_a_single_token() -> None:
    moved, done = floors(work(Request([1] * 10, 1)), QWEN, 1.0, 1.0)
    assert moved == 13_051_243_520 + 1_089_994_752 + 10 * 57_344
    assert done == 2 * (10 * 6_525_621_760 + 544_997_376)


def test_batched_requests_share_weights() -> None:
    one, _ = floors(work(Request([1] * 64, 128)), QWEN, 1.0, 1.0)
    many, _ = floors(work(*[Request([1] * 64, 128)] * 25), QWEN, 1.0, 1.0)
    assert many - one == 24 * 57_344 * sum(64 + made for made in range(128))


def test_floors_match_hand_calculation() -> None:
    # 14.14 GB of weights per step at 3.0 TB/s: 41.4 requests/s, slightly less with the KV cache.
    moved, _ = floors(work(*[Request([1] * 64, 128)] * 25), QWEN, 3.0e12, 1e15)
    assert 25 / moved == pytest.approx(40.9, abs=0.05)
