"""Prometheus metrics of the running search and of the last valid result, for rules and dashboards of headroom."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from loadtest.capacity.report.fingerprint import engine_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from prometheus_client import Metric

    from loadtest.capacity.report.progress import SearchProgress

log = logging.getLogger(__name__)

# Cache settings that change the capacity; others vary slightly from start to start.
_CACHE_LABELS = (
    "block_size",
    "cache_dtype",
    "enable_prefix_caching",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
)


def is_capacity(summary: Mapping[str, Any]) -> bool:
    """Return whether a summary has a capacity to compare load with."""
    return bool(summary["verdict"]["valid"] and summary["capacity"]["requests_per_second"]["low"])


def newest_capacity(reports: Path | None) -> dict[str, Any] | None:
    """Read the last valid result from the folder of all runs' folders; None if there is none."""
    if reports is None:
        return None
    newest: dict[str, Any] | None = None
    for path in (*reports.glob("capacity.json"), *reports.glob("*/capacity.json")):
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            if is_capacity(summary) and (newest is None or summary["run"]["started"] > newest["run"]["started"]):
                # Render it now: an incomplete file would fail every scrape.
                generate_latest(_ResultCollector(summary))
                newest = summary
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            log.warning("%s is no capacity report: %s", path, error)
    return newest


class _ResultCollector(Collector):
    """Metrics of one result, to check that they can be rendered."""

    def __init__(self, summary: Mapping[str, Any]) -> None:
        self._summary = summary

    def collect(self) -> Iterator[Metric]:
        return _capacity(self._summary)


class CapacityMetrics(Collector):
    """Metrics of the running search and the last valid capacity."""

    def __init__(self, reports: Path | None) -> None:
        """`reports` holds the folders of earlier runs."""
        self._progress: SearchProgress | None = None
        self._last = newest_capacity(reports)

    def follow(self, progress: SearchProgress) -> None:
        """Report the progress of this search from now on."""
        self._progress = progress

    def add_result(self, summary: dict[str, Any]) -> None:
        """Report the result of a search from now on, if it is valid."""
        if is_capacity(summary):
            self._last = summary

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics."""
        running = self._progress is not None and self._progress.running
        yield GaugeMetricFamily("headroom_capacity_search_running", "1 while a search runs", value=float(running))
        if self._progress is not None:
            yield from _search(self._progress)
        if self._last is not None:
            yield from _capacity(self._last)


def _search(progress: SearchProgress) -> Iterator[Metric]:
    rates = GaugeMetricFamily(
        "headroom_capacity_search_requests_per_second",
        "What the search knows so far: the capacity's interval",
        labels=["bound"],
    )
    for bound, rate in zip(("low", "mid", "high"), progress.interval, strict=True):
        if rate is not None:
            rates.add_metric([bound], rate)
    yield rates
    yield GaugeMetricFamily(
        "headroom_capacity_search_stages", "Stages and closed loops that were begun", value=len(progress.rows)
    )
    if not progress.rows:
        return
    stage = progress.rows[-1]
    yield GaugeMetricFamily("headroom_capacity_search_rate", "Requests/s of the stage that runs", value=stage.rate)
    share = GaugeMetricFamily(
        "headroom_capacity_search_good_ratio",
        "Share of the stage's requests that met the SLO, and its interval",
        labels=["bound"],
    )
    if stage.share is not None:
        for bound, value in (("low", stage.share_low), ("mid", stage.share), ("high", stage.share_high)):
            share.add_metric([bound], value)
    yield share


def _capacity(summary: Mapping[str, Any]) -> Iterator[Metric]:
    run, capacity = summary["run"], summary["capacity"]
    workload = run["workload"]
    output = capacity["output_tokens_mean"]  # None where the server counts no tokens
    labels = {
        "model_name": run["model"]["name"],
        "endpoint": workload["endpoint"],
        "prompt_tokens": f"{capacity['prompt_tokens_mean']:.0f}",
        "output_tokens": "" if output is None else f"{output:.0f}",
    }
    names, values = list(labels), list(labels.values())
    for metric, text, figures in (
        (
            "headroom_capacity_requests_per_second",
            "The last valid capacity: the highest Poisson rate that meets the SLO, with its interval",
            capacity["requests_per_second"],
        ),
        (
            "headroom_capacity_output_tokens_per_second",
            "The same as output tokens",
            capacity["output_tokens_per_second"],
        ),
    ):
        family = GaugeMetricFamily(metric, text, labels=[*names, "bound"])
        # Of a floor, the rate that was reached is the capacity to rely on.
        middle = figures["low"] if figures["mid"] is None else figures["mid"]
        for bound, value in (("low", figures["low"]), ("mid", middle), ("high", figures["high"])):
            if value is not None:
                family.add_metric([*values, bound], value)
        yield family
    for metric, text, value in (
        ("headroom_capacity_prompt_tokens", "Mean prompt length that was tested", capacity["prompt_tokens_mean"]),
        ("headroom_capacity_output_tokens", "Mean output length that was tested", output),
        ("headroom_capacity_timestamp_seconds", "Unix time of the test", run["started"]),
        (
            "headroom_capacity_settings_match",
            "1 while the engine's settings in .env are those of the test",
            float(_settings_match(run)),
        ),
    ):
        family = GaugeMetricFamily(metric, text, labels=["model_name"])
        if value is not None:
            family.add_metric([labels["model_name"]], value)
        yield family
    cache = {name: str(run["engine"]["cache_config"].get(name, "None")) for name in _CACHE_LABELS}
    info = GaugeMetricFamily(
        "headroom_capacity_engine_info",
        "The engine's cache settings at the test, as vllm:cache_config_info tells them",
        labels=["model_name", *cache],
    )
    info.add_metric([labels["model_name"], *cache.values()], 1)
    yield info


def _settings_match(run: Mapping[str, Any]) -> bool:
    return bool(run["engine"]["settings"] == engine_settings())
