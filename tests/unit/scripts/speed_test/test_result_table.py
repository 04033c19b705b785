from __future__ import annotations

import pytest
from speed_test.result_table import figures, table
from speed_test.side_result import SideResult
from speed_test.work import Request, Work

WORK = Work("m", "gpu", "float16", "dummy", None, 2024, 3, 256, [], [Request([1] * 64, 128)] * 25)
LIMITS = {
    "device": "H100",
    "bandwidth_bytes_per_s": 3.0e12,
    "operations_per_s": 7e14,
    "bytes_floor_s": 0.6,
    "operations_floor_s": None,
}
VLLM = SideResult("vllm", "0.32.0", "compiled", [1.0, 0.75, 0.8])
HF = SideResult("hf", "5.19.0", "static cache", [2.0, 1.6, 1.2])


def test_figures_use_the_median_repeat() -> None:
    told = figures(WORK, [VLLM, HF], LIMITS)
    fast, slow = told["results"]
    assert fast["requests_per_s"] == pytest.approx(25 / 0.8)
    assert fast["total_tokens_per_s"] == pytest.approx(25 * 192 / 0.8)
    assert fast["output_tokens_per_s"] == pytest.approx(25 * 128 / 0.8)
    assert fast["spread"] == pytest.approx(0.25 / 0.8)
    assert fast["share_of_bandwidth_limit"] == pytest.approx(0.75)
    assert slow["share_of_operations_limit"] is None
    assert told["ratio"] == pytest.approx(2.0)


def test_table_shows_sides_ratio_and_share() -> None:
    text = table(figures(WORK, [VLLM, HF], LIMITS))
    vllm = next(line for line in text.splitlines() if line.startswith("vllm "))
    assert vllm.split() == ["vllm", "31.25", "6000.00", "4000.00", "31.2%", "75%", "-"]
    assert "vllm / hf: 2.00; difference 15.62 requests/s, 3000.00 tokens/s" in text
    assert "random weights" in text


def test_single_side_has_no_ratio() -> None:
    assert "vllm / hf" not in table(figures(WORK, [VLLM], LIMITS))
