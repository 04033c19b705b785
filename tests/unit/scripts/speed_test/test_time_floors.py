from __future__ import annotations

import pytest
from speed_test.time_floors import ModelShape, floors
from speed_test.work import Request, Work

# Qwen2-7B-Instruct in 16 bits: 28 layers, 4 key-value heads of 128.
QWEN = ModelShape(6_525_621_760, 544_997_376, 13_051_243_520, 1_089_994_752, 2 * 28 * 4 * 128 * 2)


def work(*requests: Request) -> Work:
    return Work("m", "gpu", "float16", "auto", None, 1, 1, 256, [], list(requests))


def test_one_token_costs_the_weights_and_the_prompts_keys_and_values_once() -> None:
    moved, done = floors(work(Request([1] * 10, 1)), QWEN, 1.0, 1.0)
    assert moved == 13_051_243_520 + 1_089_994_752 + 10 * 57_344
    assert done == 2 * (10 * 6_525_621_760 + 544_997_376)


def test_requests_at_once_share_the_weights_but_not_their_keys_and_values() -> None:
    one, _ = floors(work(Request([1] * 64, 128)), QWEN, 1.0, 1.0)
    many, _ = floors(work(*[Request([1] * 64, 128)] * 25), QWEN, 1.0, 1.0)
    assert many - one == 24 * 57_344 * sum(64 + made for made in range(128))


def test_the_limit_of_the_speed_test_is_that_of_a_hand_calculation() -> None:
    # 14.14 GB of weights a step at 3.0 TB/s: 41.4 requests/s by the weights alone, a little less with the KV cache.
    moved, _ = floors(work(*[Request([1] * 64, 128)] * 25), QWEN, 3.0e12, 1e15)
    assert 25 / moved == pytest.approx(40.9, abs=0.05)
