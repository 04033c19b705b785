"""PromQL of the dashboards: sums over engines or load workers come first; ratios never divide by zero."""

from __future__ import annotations

from typing import NamedTuple

# Always by job: a router in front repeats the engines' metrics, and a sum over both counts twice.
TARGET = 'job="vllm", instance=~"$instance"'
ENGINE = f'{TARGET}, model_name=~"$model"'
MODEL = 'model_name=~"$model"'
CLIENT = 'job="locust"'
GPU = 'job="gpu"'
HOST = 'job="node"'

SLO_TTFT = "max(headroom:slo_ttft:seconds)"
SLO_TPOT = "max(headroom:slo_tpot:seconds)"
MAY_MISS = "1 - max(headroom:slo_objective:ratio)"


class Query(NamedTuple):
    """A PromQL expression and the name of its line."""

    expr: str
    legend: str


def total(metric: str, selector: str, *by: str) -> str:
    """Sum of a gauge over engines or load workers, or one sum for each value of the labels `by`."""
    return f"sum{_by(by)} ({metric}{{{selector}}})"


def rate(counter: str, selector: str, *by: str) -> str:
    """Per-second rate of a counter, summed like `total`."""
    return f"sum{_by(by)} (rate({counter}{{{selector}}}[$__rate_interval]))"


def share(part: str, whole: str) -> str:
    """`part` of `whole`; no value, rather than NaN, where `whole` is 0."""
    return f"{part} / ({whole} > 0)"


def mean(histogram: str, selector: str, *by: str) -> str:
    """Mean of a histogram's observations: exact, independent of bucket edges."""
    return share(rate(f"{histogram}_sum", selector, *by), rate(f"{histogram}_count", selector, *by))


def quantile(q: float, histogram: str, selector: str) -> str:
    """Quantile of a histogram over all engines or load workers: buckets are summed first, never averaged."""
    return f"histogram_quantile({q:g}, {rate(f'{histogram}_bucket', selector, 'le')})"


def percentiles(
    histogram: str, selector: str, name: str = "", qs: tuple[float, ...] = (0.5, 0.95, 0.99)
) -> list[Query]:
    """Lines p50, p95 and p99 of a latency or a length; `name` is their prefix."""
    return [Query(quantile(q, histogram, selector), f"{name} p{q * 100:g}".strip()) for q in qs]


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
