"""`summary.json`: all figures of a run, in milliseconds, seconds and tokens."""

from __future__ import annotations

import dataclasses
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from loadtest.client.request_record import Outcome

if TYPE_CHECKING:
    from loadtest.results.distribution import Distribution
    from loadtest.results.reconcile import Reconciliation
    from loadtest.results.run_results import RunResults
    from loadtest.results.run_verdict import RunVerdict
    from loadtest.results.totals import Totals
    from loadtest.settings.run_options import RunOptions
    from loadtest.workload import WorkloadOptions

VERSIONS = ("locust", "gevent", "httptools", "numpy")
# With fewer values, the 99th percentile is that of one or two requests; it is left out.
_FEWEST_FOR_P99 = 100


def summarize(results: RunResults, verdict: RunVerdict, reconciliation: Reconciliation | None) -> dict[str, Any]:
    """Return the content of `summary.json`, JSON values only."""
    totals = results.measured.combined()
    return {
        "run": _run(results, totals),
        "verdict": {
            "valid": verdict.valid,
            "reasons": list(verdict.reasons),
            "slo_met": verdict.slo_met,
            "slo_attainment": verdict.attainment,
            "exit_code": verdict.exit_code,
        },
        **_figures(totals, duration(totals)),
        "endpoints": {
            endpoint: _figures(part, duration(totals)) for endpoint, part in sorted(results.measured.endpoints.items())
        },
        "client": _client(results, totals),
        "server": None if reconciliation is None else _server(reconciliation),
    }


def duration(totals: Totals) -> float:
    """Return the seconds from the first measured request's start to the last one's end; 0 if there is none."""
    return max(0.0, totals.last_ended - totals.first_sent) if totals.last_ended else 0.0


def _run(results: RunResults, totals: Totals) -> dict[str, Any]:
    options, plan = results.options, results.plan
    return {
        "id": plan.run_id,
        "started": plan.started,
        "duration_s": duration(totals),
        "seed": plan.seed,
        "target": options.target.name,
        "workload": {
            **workload_figures(options.workload),
            **dataclasses.asdict(options.pacing),
            "notes": list(results.notes),
        },
        "slo": slo_figures(options),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
        "model": {"name": plan.model, "max_model_len": plan.max_model_len},
        "processes": len(results.processes),
        "warmup_requests": results.unmeasured.combined().outcomes.total(),
    }


def workload_figures(workload: WorkloadOptions) -> dict[str, Any]:
    """Return the workload's options as JSON values."""
    return {
        key: str(value) if value is not None and not isinstance(value, (bool, int, float, str, dict)) else value
        for key, value in dataclasses.asdict(workload).items()
        if key not in {"model", "seed", "max_model_len"}
    }


def slo_figures(options: RunOptions) -> dict[str, float | None]:
    """Return the SLO's limits in milliseconds, and the percentage of requests that must meet them."""
    limits = dataclasses.asdict(options.slo).items()
    return {
        **{f"{name}_ms": None if limit is None else limit * 1000 for name, limit in limits},
        "percentile": options.slo_percentile,
    }


def _figures(totals: Totals, seconds: float) -> dict[str, Any]:
    ended = totals.outcomes.total() - totals.outcomes[Outcome.CANCELLED.value]

    def rate(amount: float) -> float | None:
        return amount / seconds if seconds else None

    names = ("ttft", "ttfat", "chunk_gap", "tpot", "e2e", "schedule_delay", "ttft_from_due", "e2e_from_due")
    return {
        "requests": {
            "total": totals.outcomes.total(),
            **{outcome.value: totals.outcomes[outcome.value] for outcome in Outcome},
        },
        "cut_off_late": totals.cut_off_late,
        "tpot_unknown": totals.tpot_unknown,
        "uncounted": totals.uncounted,
        "failures": [dataclasses.asdict(failure) for failure in totals.failures.most_frequent()],
        "pauses": {"count": totals.pauses, "retry_after": totals.retry_after_pauses, "user_s": totals.paused_s},
        "tokens": {
            "prompt": totals.prompt_tokens,
            "output": totals.output_tokens,
            "reasoning": totals.reasoning_tokens,
            "cached_prompt": totals.cached_tokens,
            "prompts_of_unexpected_length": totals.prompt_mismatches,
        },
        "throughput": {
            "requests_per_s": rate(ended),
            "output_tokens_per_s": None if totals.uncounted else rate(totals.output_tokens),
            "total_tokens_per_s": None if totals.uncounted else rate(totals.prompt_tokens + totals.output_tokens),
            "goodput_requests_per_s": rate(totals.good),
        },
        **{f"{name}_ms": milliseconds(totals.distributions[name]) for name in names},
    }


def milliseconds(distribution: Distribution) -> dict[str, float | int | None]:
    """Return count, mean, percentiles and maximum in milliseconds; p99 is None below 100 values."""
    summary = distribution.summary()
    figures: dict[str, float | int | None] = {"count": summary.count}
    for name in ("mean", "p50", "p90", "p95", "p99", "max"):
        value = getattr(summary, name)
        few = name == "p99" and summary.count < _FEWEST_FOR_P99
        figures[name] = None if value is None or few else value * 1000
    return figures


def _client(results: RunResults, totals: Totals) -> dict[str, Any]:
    tokens = totals.output_tokens + results.unmeasured.combined().output_tokens
    return {
        "timestamps": "kernel" if totals.requests_read and totals.reads_stamped == totals.requests_read else "user",
        "cpu_s": results.cpu_s,
        "cpu_us_per_token": results.cpu_s * 1e6 / tokens if tokens and not totals.uncounted else None,
        "merged_deltas": totals.merged_deltas,
        "lag_ms": milliseconds(totals.distributions["lag"]),
        "processes": {
            name: {
                "cpu_ratio": process.cpu_s / process.wall_s if process.wall_s else None,
                "busy_s": process.busy_s,
                "lost_after_s": process.lost_after_s,
                "left_after_s": process.left_after_s,
            }
            for name, process in results.processes.items()
        },
    }


def _server(reconciliation: Reconciliation) -> dict[str, Any]:
    server = reconciliation.server
    return {
        "generation_tokens": server.generation_tokens,
        "prompt_tokens": server.prompt_tokens,
        "requests": {reason: count for reason, count in server.ended.items() if count},
        "prefix_cache_hit_ratio": reconciliation.cache_hit_ratio,
        "ttft_mean_ms": server.ttft_sum / server.ttft_count * 1000 if server.ttft_count else None,
        "client_generation_tokens": reconciliation.output_tokens,
        "client_prompt_tokens": reconciliation.prompt_tokens,
        "client_requests": reconciliation.requests,
        "engines": {
            address: {
                "generation_tokens": engine.generation_tokens,
                "prompt_tokens": engine.prompt_tokens,
                "requests": sum(engine.ended.values()),
            }
            for address, engine in server.engines.items()
        },
        "reconciled": reconciliation.agrees,
    }
