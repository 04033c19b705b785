"""Judge whether a stage counts: causes other than the engine that may explain its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtest.results.run_verdict import busy_problems, judge_server, own_limit_problems

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.results.reconcile import Reconciliation
    from loadtest.results.run_results import RunResults
    from loadtest.settings.run_options import Slo

# Tolerated lateness of sending and reading: a share of the TTFT limit, and at least so many seconds.
_TOLERANCE, _FEWEST_S = 0.05, 0.010
# Tolerated share of late requests; fewer than so many never count.
_SHARE, _FEWEST = 0.01, 3
_SPREAD = "spread the load over more processes (--processes, LOCUST_WORKERS)"


def tolerance_s(slo: Slo) -> float:
    """Return by how many seconds a request may be sent late, or an answer read late."""
    return max(_FEWEST_S, _TOLERANCE * (slo.ttft or 0.0))


def client_figures(results: RunResults, delays: Sequence[float]) -> dict[str, Any]:
    """Return figures that show whether the client kept up. `delays`: due to sent, seconds."""
    totals = results.measured.combined()
    limit = tolerance_s(results.options.slo)
    lag = totals.distributions["lag"].percentile(99)
    return {
        "requests": len(delays),
        "late": sum(delay > limit for delay in delays),
        "late_limit_ms": limit * 1000,
        "latest_ms": max(delays, default=0.0) * 1000,
        "read_lag_p99_ms": None if lag is None else lag * 1000,
        "merged_deltas_ratio": totals.merged_deltas / totals.deltas if totals.deltas else 0.0,
        "busiest_process_cpu": max(
            (process.cpu_s / process.wall_s for process in results.processes.values() if process.wall_s), default=None
        ),
    }


def client_problems(results: RunResults, figures: Mapping[str, Any]) -> list[str]:
    """Return why the client was the bottleneck; empty if it was not."""
    problems = [*own_limit_problems(results.measured.combined()), *busy_problems(results)]
    late, requests = figures["late"], figures["requests"]
    if late >= _FEWEST and late > _SHARE * requests:
        problems.append(
            f"arrivals were late: {late} of {requests} requests were sent more than {figures['late_limit_ms']:.0f} ms "
            f"after they were due; {_SPREAD}"
        )
    lag = figures["read_lag_p99_ms"]
    if lag is not None and lag > figures["late_limit_ms"] and figures["merged_deltas_ratio"] > _SHARE:
        problems.append(f"the client read late (p99 {lag:.0f} ms after the bytes had come); {_SPREAD}")
    return problems


def void_reasons(results: RunResults, reconciliation: Reconciliation | None, client: Sequence[str]) -> tuple[str, ...]:
    """Return why a stage does not count; empty if it counts."""
    reasons = [*judge_server(results, reconciliation), *client]
    reasons += [
        f"load generator {name} was told to end during the stage"
        for name, process in results.processes.items()
        if process.left_after_s is not None
    ]
    return tuple(reasons)
