"""Metrics of the simulated engine, with vLLM's names and meanings."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from loadtest.capacity.simulation.simulated_engine import SimulatedEngine, StepEnd

_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_REQUEST = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)
_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_HISTOGRAMS = {
    "time_to_first_token_seconds": _TTFT,
    "inter_token_latency_seconds": _TOKEN,
    "request_time_per_output_token_seconds": _TOKEN,
    "e2e_request_latency_seconds": _REQUEST,
    "request_queue_time_seconds": _REQUEST,
    "request_prefill_time_seconds": _REQUEST,
    "request_decode_time_seconds": _REQUEST,
    "request_inference_time_seconds": _REQUEST,
    "iteration_tokens_total": _TOKENS,
    "request_prompt_tokens": _TOKENS,
    "request_generation_tokens": _TOKENS,
}


class Histogram:
    """Histogram: counts per bucket, and the sum."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = (*edges, math.inf)
        self.counts = [0] * len(self.edges)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.edges, value)] += times
        self.total += value * times

    def cumulative(self) -> list[tuple[str, float]]:
        total, buckets = 0, []
        for edge, count in zip(self.edges, self.counts, strict=True):
            total += count
            buckets.append(("+Inf" if math.isinf(edge) else str(float(edge)), float(total)))
        return buckets


class EngineMetrics(Collector):
    """All counters of one engine since its start."""

    def __init__(self, engine: SimulatedEngine, model: str) -> None:
        self._engine = engine
        self._labels = {"model_name": model, "engine": "0"}
        self.histograms = {name: Histogram(edges) for name, edges in _HISTOGRAMS.items()}
        self.counts: Counter[str] = Counter()
        self.ended: Counter[str] = Counter({"stop": 0, "length": 0, "abort": 0, "error": 0})
        self.answers: Counter[tuple[str, str, str]] = Counter()  # handler, method, status class
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def count_step(self, end: StepEnd, seconds: float, made: int) -> None:
        """Count a step of `seconds`, with `made` output tokens in total."""
        self.counts["generation_tokens"] += made
        self.histograms["iteration_tokens_total"].add(end.decode_tokens + end.prefill_tokens)
        if end.decode_tokens:
            self.histograms["inter_token_latency_seconds"].add(seconds, end.decode_tokens)

    def page(self) -> bytes:
        """Return the metrics page."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        labels, values = list(self._labels), list(self._labels.values())
        engine = self._engine
        for name, value in (
            ("num_requests_running", len(engine.running)),
            ("num_requests_waiting", len(engine.waiting)),
            ("kv_cache_usage_perc", engine.used_blocks / engine.spec.kv_blocks),
        ):
            gauge = GaugeMetricFamily(f"vllm:{name}", "as vLLM means it", labels=labels)
            gauge.add_metric(values, value)
            yield gauge
        waiting = GaugeMetricFamily(
            "vllm:num_requests_waiting_by_reason", "as vLLM means it", labels=[*labels, "reason"]
        )
        waiting.add_metric([*values, "capacity"], len(engine.waiting))
        waiting.add_metric([*values, "deferred"], 0)
        yield waiting
        yield self._cache_config()
        self.counts["num_preemptions"] = engine.preemptions
        for name in (
            *("prompt_tokens", "generation_tokens", "prefix_cache_queries", "prefix_cache_hits", "num_preemptions"),
        ):
            counter = CounterMetricFamily(f"vllm:{name}", "as vLLM counts it", labels=labels)
            counter.add_metric(values, self.counts[name])
            yield counter
        success = CounterMetricFamily("vllm:request_success", "as vLLM counts it", labels=[*labels, "finished_reason"])
        for reason, count in self.ended.items():
            success.add_metric([*values, reason], count)
        yield success
        rejections = CounterMetricFamily("vllm:admission_rejections", "as vLLM counts it", labels=[*labels, "reason"])
        rejections.add_metric([*values, "max_num_queued_reqs"], engine.rejections)
        rejections.add_metric([*values, "max_num_queued_tokens"], 0)
        yield rejections
        requests = CounterMetricFamily(
            "http_requests", "as vLLM's instrumentator counts it", labels=["handler", "method", "status"]
        )
        for answer, count in self.answers.items():
            requests.add_metric(list(answer), count)
        yield requests
        for name, histogram in self.histograms.items():
            family = HistogramMetricFamily(f"vllm:{name}", "as vLLM means it", labels=labels)
            family.add_metric(values, histogram.cumulative(), histogram.total)
            yield family

    def _cache_config(self) -> Metric:
        spec = self._engine.spec
        facts = {
            **self._labels,
            "block_size": str(spec.block_size),
            "num_gpu_blocks": str(spec.kv_blocks),
            "kv_cache_size_tokens": str(spec.kv_blocks * spec.block_size),
        }
        info = GaugeMetricFamily("vllm:cache_config_info", "as vLLM tells it", labels=list(facts))
        info.add_metric(list(facts.values()), 1)
        return info
