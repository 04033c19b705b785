from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.capacity.bottleneck import engine_series
from loadtest.capacity.bottleneck.engine_series import (
    EngineSample,
    EngineSampler,
    add_up,
    by_engine,
    parse_sample,
    read_sample,
    summarize_samples,
    theoretical_concurrency,
)
from loadtest.client.target import Target

PAGE = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b{}"} 3.0
vllm:num_requests_running{engine="1",model_name="a b{}"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a b{}"} 7.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a b{}",reason="capacity"} 6.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a b{}",reason="deferred"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="a b{}"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a b{}"} 0.75
vllm:iteration_tokens_total_bucket{engine="0",le="64.0",model_name="a b{}"} 9.0
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="a b{}"} 10.0
vllm:iteration_tokens_total_count{engine="0",model_name="a b{}"} 10.0
vllm:iteration_tokens_total_sum{engine="0",model_name="a b{}"} 1.2e+02
vllm:admission_rejections_total{engine="0",model_name="a b{}",reason="max_num_queued_reqs"} 4.0
vllm:admission_rejections_total{engine="0",model_name="a b{}",reason="max_num_queued_tokens"} 1.0
process_cpu_seconds_total 12.5
"""


def test_engines_are_summed() -> None:
    sample = parse_sample(PAGE, 1.0, 0.5)
    assert sample is not None
    assert (sample.running, sample.waiting, sample.waiting_capacity, sample.waiting_deferred) == (5, 7, 6, 1)
    assert (sample.kv_usage, sample.steps, sample.step_tokens) == (0.75, 10, 120)
    assert sample.steps_up_to == {64.0: 9, math.inf: 10}
    assert (sample.rejections, sample.front_end_cpu_s, sample.host_cpu) == (5, 12.5, 0.5)


@pytest.mark.parametrize(
    ("steps", "largest"),
    [
        ({16.0: 50, 64.0: 1099, 128.0: 1100, math.inf: 1100}, 64.0),
        ({16.0: 50, 64.0: 1000, 128.0: 1100, math.inf: 1100}, 128.0),
        ({16.0: 0, 64.0: 10, 128.0: 20, math.inf: 1100}, 128.0),  # beyond the last edge
        ({16.0: 0, 64.0: 0, 128.0: 0, math.inf: 100}, None),  # no step in this stage
        ({}, None),
    ],
)
def test_largest_step_leaves_out_rare_ones(steps: dict[float, float], largest: float | None) -> None:
    before = EngineSample(0.0, 0.5, running=1, steps_up_to={edge: 100.0 * (edge == math.inf) for edge in steps})
    samples = [before, replace(before, at=1.0, steps_up_to=steps)]
    assert summarize_samples(samples)["largest_step"] == largest


def test_foreign_page_is_no_sample() -> None:
    assert parse_sample("process_cpu_seconds_total 12.5\n", 1.0, 0.5) is None


def test_all_parsed_names_are_vllms() -> None:
    captured = (Path(__file__).parents[4] / "rules/metrics/vllm-0.32.0.txt").read_text()
    for name in (*engine_series._SUMS, engine_series._BY_REASON, engine_series._KV, engine_series._CACHE_CONFIG):
        base = name.removesuffix("_sum").removesuffix("_count")
        assert f"# TYPE {name} " in captured or f"# TYPE {base} histogram" in captured, name


ROUTER = Target.parse("http://router:8000", engines="http://127.0.0.1:1 http://127.0.0.1:2")


def behind_a_router(monkeypatch: pytest.MonkeyPatch, *pages: str) -> None:
    """Return the metrics pages of engines at ports 1 and 2; empty for one that does not answer."""
    monkeypatch.setattr(engine_series, "read_metrics", lambda engine, _timeout_s: pages[engine.port - 1])


def test_all_engines_behind_router_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    behind_a_router(monkeypatch, PAGE, PAGE.replace("} 0.75", "} 0.5").replace("_running{engine", "_running{x"))
    sample = read_sample(ROUTER)
    assert sample is not None
    assert (sample.running, sample.waiting, sample.waiting_capacity, sample.steps) == (10, 14, 12, 20)
    assert (sample.kv_usage, sample.front_end_cpu_s) == (0.75, 25.0)
    assert sample.steps_up_to == {64.0: 18, math.inf: 20}
    assert {address: own.kv_usage for address, own in sample.engines.items()} == {
        "127.0.0.1:1": 0.75,
        "127.0.0.1:2": 0.5,
    }


def test_incomplete_sample_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    behind_a_router(monkeypatch, PAGE, "")
    assert read_sample(ROUTER) is None
    # The second time its name does not resolve, as when its container was removed.
    both = add_up({"a": EngineSample(1.0, 0.5, steps=10), "b": EngineSample(1.0, 0.5, steps=10)})
    one = add_up({"a": EngineSample(2.0, 0.5, steps=11)})
    coming = iter((both, one, None, both))
    monkeypatch.setattr(engine_series, "read_sample", lambda _target: next(coming))
    monkeypatch.setattr(engine_series, "INTERVAL_S", 0.0)
    sampler = EngineSampler(ROUTER)
    sampler._greenlet.join()  # ends with `coming`
    assert sampler.stop() == [both, both]


def test_limits_of_one_engine_are_not_summed() -> None:
    """Two engines of 8 slots: the first is full and has a queue, the second is not."""
    samples = [
        add_up(
            {
                "a": EngineSample(at, 0.5, 8, waiting=2, kv_usage=0.4, front_end_cpu_s=0.5 * at),
                "b": EngineSample(at, 0.5, 8 * at / 10, kv_usage=0.95, front_end_cpu_s=0.6 * at),
            }
        )
        for at in (5.0, 10.0)
    ]
    figures = summarize_samples(samples)
    assert (figures["running_max"], figures["running_max_of_one"]) == (16, 8)
    assert (figures["running_mean"], figures["running_mean_of_one"]) == (14, 7)
    assert (figures["running_while_queued"], figures["kv_usage_while_queued"]) == ([8, 8], [0.4, 0.4])
    assert figures["front_end_cpu"] == pytest.approx(0.6)
    assert [[own.running for own in one] for one in by_engine(samples)] == [[8, 8], [4, 8]]


def test_unreported_api_server_cpu_is_none() -> None:
    """An API server of several processes omits `process_cpu_seconds_total`."""
    samples = [add_up({"a": EngineSample(at, 0.5, 8)}) for at in (5.0, 10.0)]
    assert summarize_samples(samples)["front_end_cpu"] is None


def test_counters_become_rates_and_means() -> None:
    first = EngineSample(at=10.0, host_cpu=0.4, running=4, steps=100, step_tokens=1000, queue_s=5.0, ended=10)
    last = EngineSample(
        *(20.0, 0.6), running=8, waiting=2, kv_usage=0.9, steps=300, step_tokens=5000, queue_s=9.0, ended=30
    )
    figures = summarize_samples([first, last])
    assert (figures["seconds"], figures["running_mean"], figures["running_max"]) == (10.0, 6.0, 8)
    assert (figures["steps_per_s"], figures["tokens_per_step"], figures["queue_s"]) == (20.0, 20.0, 0.2)
    assert (figures["running_while_queued"], figures["kv_usage_while_queued"]) == ([8], [0.9])
    assert figures["prefill_s"] == 0.0
    assert summarize_samples([first]) == {}


def test_theoretical_concurrency() -> None:
    cache = {"num_gpu_blocks": "182", "block_size": "128"}
    assert theoretical_concurrency(cache, 1, 64 + 16) == pytest.approx(182 * 128 / 80)
    assert theoretical_concurrency(cache, 3, 64 + 16) == pytest.approx(3 * 182 * 128 / 80)
    assert theoretical_concurrency({}, 1, 80) is None
