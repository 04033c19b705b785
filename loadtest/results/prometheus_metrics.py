"""Prometheus metrics of the load test, with vLLM's names, units and bucket edges, prefixed `loadtest`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from loadtest.client.request_record import Outcome
from loadtest.results.totals import RunTotals
from loadtest.settings.run_options import Slo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

    from loadtest.results.distribution import Distribution
    from loadtest.results.run_results import RunResults

_HISTOGRAMS = {
    "ttft": (
        "loadtest_time_to_first_token_seconds",
        "Request sent to the first non-empty delta, of requests that ended ok",
    ),
    "ttfat": (
        "loadtest_time_to_first_answer_token_seconds",
        "From sending a request to the first delta with text or a tool call, not reasoning; of requests that ended ok",
    ),
    "chunk_gap": (
        "loadtest_inter_token_latency_seconds",
        "Between consecutive non-empty deltas of a stream, of requests that ended ok",
    ),
    "tpot": (
        "loadtest_request_time_per_output_token_seconds",
        "(last delta - first delta) / (output tokens - 1) of a request that ended ok",
    ),
    "e2e": (
        "loadtest_e2e_request_latency_seconds",
        "Request sent to its last delta, of requests that ended ok",
    ),
    "schedule_delay": ("loadtest_schedule_delay_seconds", "Open loop: request due to request sent"),
    "lag": (
        "loadtest_client_lag_seconds",
        "Bytes in the kernel to bytes read: how busy the load generator is",
    ),
}


class LoadTestMetrics(Collector):
    """Metrics of all runs of this process: counters rise from run to run, as Prometheus expects."""

    def __init__(self, users: Callable[[], int]) -> None:
        """`users` returns the number of running Locust users."""
        self._users = users
        self._totals = _zero_totals(Slo())
        self._results: RunResults | None = None
        self._target_rate = 0.0
        self._others: list[Collector] = []

    def add_collector(self, collector: Collector) -> None:
        """Expose the metrics of `collector` too."""
        self._others.append(collector)

    def start_run(self, results: RunResults, target_rate: float = 0.0) -> None:
        """Show this run in the gauges; `target_rate` in requests/s. A new SLO (new edges) restarts the histograms."""
        self._results = results
        self._target_rate = target_rate
        if self._totals.slo != results.options.slo:
            self._totals = _zero_totals(results.options.slo)

    def add(self, reported: RunTotals) -> None:
        """Add the totals of one report."""
        self._totals.merge(reported)
        for totals in self._totals.endpoints.values():
            totals.deltas_at.clear()  # shown in no metric, and would grow by the second

    def registry(self) -> CollectorRegistry:
        """Return a registry with only these metrics and those of the added collectors."""
        registry = CollectorRegistry(auto_describe=False)
        for collector in (self, *self._others):
            registry.register(collector)
        return registry

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics; called by prometheus-client for each scrape."""
        yield GaugeMetricFamily("loadtest_users", "Locust users that run now", value=self._users())
        yield GaugeMetricFamily(
            "loadtest_target_requests_per_second",
            "Arrival rate asked for; 0 in closed loop",
            value=self._target_rate,
        )
        if self._results is not None:
            yield GaugeMetricFamily(
                "loadtest_client_cpu_ratio",
                "CPU of the busiest load-generating process, 1 is one core",
                value=self._results.cpu_ratio,
            )
            yield InfoMetricFamily("loadtest_run", "The run that is under way or was the last", self._run_labels())
        yield from _counters(self._totals)
        yield from _histograms(self._totals)

    def _run_labels(self) -> dict[str, str]:
        assert self._results is not None  # noqa: S101  # for the type checker: collect() has checked
        workload, plan = self._results.options.workload, self._results.plan
        return {
            "run_id": plan.run_id,
            "model_name": plan.model,
            "endpoint": workload.endpoint,
            "prompt_tokens": workload.prompt_tokens or "",
            "output_tokens": workload.output_tokens or "",
            "stream": str(workload.stream).lower(),
            "seed": str(plan.seed),
        }


def _zero_totals(slo: Slo) -> RunTotals:
    """Return totals with every series at 0: Prometheus sees no increase up to a counter's first value."""
    run_totals = RunTotals(slo)
    for endpoint in ("chat", "completions"):
        run_totals.totals(endpoint)
    return run_totals


def _counters(run_totals: RunTotals) -> Iterator[Metric]:
    requests = CounterMetricFamily("loadtest_requests", "Requests by how they ended", labels=["endpoint", "outcome"])
    prompt = CounterMetricFamily(
        "loadtest_prompt_tokens", "Prompt tokens, counted by the server (usage)", labels=["endpoint"]
    )
    generation = CounterMetricFamily(
        "loadtest_generation_tokens", "Output tokens, counted by the server (usage)", labels=["endpoint"]
    )
    goodput = CounterMetricFamily(
        "loadtest_goodput_requests", "Requests that ended ok and met every SLO", labels=["endpoint"]
    )
    pauses = CounterMetricFamily("loadtest_pauses", "Pauses of closed-loop users after failures", labels=["endpoint"])
    paused = CounterMetricFamily("loadtest_paused_seconds", "Seconds that users paused, summed", labels=["endpoint"])
    for endpoint, totals in run_totals.endpoints.items():
        pauses.add_metric([endpoint], totals.pauses)
        paused.add_metric([endpoint], totals.paused_s)
        for outcome in Outcome:
            requests.add_metric([endpoint, outcome.value], totals.outcomes[outcome.value])
        prompt.add_metric([endpoint], totals.prompt_tokens)
        generation.add_metric([endpoint], totals.output_tokens)
        goodput.add_metric([endpoint], totals.good)
    yield from (requests, prompt, generation, goodput, pauses, paused)


def _histograms(run_totals: RunTotals) -> Iterator[Metric]:
    for name, (metric, text) in _HISTOGRAMS.items():
        family = HistogramMetricFamily(metric, text, labels=["endpoint"])
        for endpoint, totals in run_totals.endpoints.items():
            distribution = totals.distributions[name]
            family.add_metric([endpoint], _prometheus_buckets(distribution), distribution.total)
        yield family


def _prometheus_buckets(distribution: Distribution) -> list[tuple[str, float]]:
    return [
        ("+Inf" if bound == float("inf") else str(bound), float(count)) for bound, count in distribution.cumulative()
    ]
