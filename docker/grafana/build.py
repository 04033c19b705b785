"""Builds the dashboards, docker/grafana/dashboards/*.json, with Grafana's own SDK.

python docker/grafana/build.py            # write the JSON
python docker/grafana/build.py --check    # exit 1 when the committed JSON is not what this file builds
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardSpecialValueMapOptions,
    DataSourceRef,
    GridPos,
    SpecialValueMap,
    SpecialValueMatch,
    Threshold,
    ThresholdsMode,
    ValueMappingResult,
    VariableRefresh,
)

OUTPUT = Path(__file__).parent / "dashboards"
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
ENGINE = 'job="vllm", model_name=~"$model"'
CLIENT = 'job="locust"'


class Query(NamedTuple):
    """A PromQL expression and the name of its line."""

    expr: str
    legend: str


def rate(metric: str, selector: str, by: str = "") -> str:
    """Per-second rate of a counter, summed over engines or load workers."""
    return f"sum{by} (rate({metric}{{{selector}}}[$__rate_interval]))"


def quantile(q: float, histogram: str, selector: str) -> str:
    """Quantile of a histogram over all engines or load workers: buckets are summed first, never averaged."""
    return f"histogram_quantile({q}, {rate(histogram + '_bucket', selector, ' by (le)')})"


def no_traffic() -> SpecialValueMap:
    """A quantile of nothing is NaN; say so in words."""
    return SpecialValueMap(
        options=DashboardSpecialValueMapOptions(
            match=SpecialValueMatch.NULL_AND_NAN, result=ValueMappingResult(text="No traffic")
        )
    )


def thresholds(*steps: tuple[float | None, str]) -> board.ThresholdsConfig:
    """Colour from a value on; the first step has no value."""
    config = board.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE)
    return config.steps([Threshold(value=value, color=color) for value, color in steps])


def tile(
    title: str, unit: str, description: str, expr: str, limits: board.ThresholdsConfig | None = None
) -> stat.Panel:
    """One number, an eighth of the width."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .mappings([no_traffic()])
        .no_value("No traffic")
        .thresholds(limits or thresholds((None, "text")))
        .graph_mode(BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(Dataquery().expr(expr))
        .grid_pos(GridPos(h=4, w=3, x=0, y=0))
    )


def graph(title: str, unit: str, description: str, *queries: Query) -> timeseries.Panel:
    """Lines over time, half of the width; zero is always in sight."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .fill_opacity(8)
        .line_width(2)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .grid_pos(GridPos(h=8, w=12, x=0, y=0))
    )
    for query in queries:
        panel.with_target(Dataquery().expr(query.expr).legend_format(query.legend))
    return panel


def percentiles(histogram: str, selector: str, side: str) -> list[Query]:
    """The lines that a latency graph shows for one side, engine or client."""
    return [Query(quantile(q, histogram, selector), f"{side} p{q * 100:g}") for q in (0.5, 0.95, 0.99)]


def burn(slo: str) -> str:
    """How fast the worst model's error budget burns: 1 is exactly as fast as the SLO allows."""
    return f'max(model:{slo}_slo_miss:ratio_rate5m{{model_name=~"$model"}}) / (1 - max(headroom:slo_objective:ratio))'


def overview() -> Dashboard:
    """Is it up, how fast, how full: in the order in which an on-call person asks."""
    good_or_bad = thresholds((None, "red"), (1, "green"))
    fuller = thresholds((None, "green"), (0.8, "orange"), (0.95, "red"))
    tiles = [
        tile("Engines up", "none", "up{job=vllm}: engines that answer Prometheus.", 'sum(up{job="vllm"})', good_or_bad),
        tile(
            "Requests",
            "reqps",
            "vllm:request_success_total: requests that the engine finished, per second, whatever the reason.",
            rate("vllm:request_success_total", ENGINE),
        ),
        tile(
            "Output tokens",
            "short",
            "vllm:generation_tokens_total: tokens that the engine generated, per second.",
            rate("vllm:generation_tokens_total", ENGINE),
        ),
        tile(
            "TTFT p95",
            "s",
            "vllm:time_to_first_token_seconds: 95 of 100 requests got their first token within this time.",
            quantile(0.95, "vllm:time_to_first_token_seconds", ENGINE),
        ),
        tile(
            "TPOT p95",
            "s",
            "vllm:request_time_per_output_token_seconds: time per output token after the first, per request.",
            quantile(0.95, "vllm:request_time_per_output_token_seconds", ENGINE),
        ),
        tile(
            "Running",
            "none",
            "vllm:num_requests_running: requests in the current batch.",
            f"sum(vllm:num_requests_running{{{ENGINE}}})",
        ),
        tile(
            "Waiting",
            "none",
            "vllm:num_requests_waiting: requests in the queue. More than none for long means: full.",
            f"sum(vllm:num_requests_waiting{{{ENGINE}}})",
            thresholds((None, "green"), (1, "orange")),
        ),
        tile(
            "KV cache",
            "percentunit",
            "vllm:kv_cache_usage_perc: the fullest engine's share of KV cache blocks in use.",
            f"max(vllm:kv_cache_usage_perc{{{ENGINE}}})",
            fuller,
        ),
    ]
    graphs = [
        graph(
            "TTFT, engine and client",
            "s",
            "Time to first token. Engine: vllm:time_to_first_token_seconds; client: what the load test saw, "
            "loadtest_time_to_first_token_seconds. The gap is network, server front end, or a busy client.",
            *percentiles("vllm:time_to_first_token_seconds", ENGINE, "engine"),
            *percentiles("loadtest_time_to_first_token_seconds", CLIENT, "client"),
            Query("max(headroom:slo_ttft:seconds)", "SLO"),
        ),
        graph(
            "TPOT, engine and client",
            "s",
            "Time per output token after the first, one value a request. Engine: "
            "vllm:request_time_per_output_token_seconds; client: loadtest_request_time_per_output_token_seconds.",
            *percentiles("vllm:request_time_per_output_token_seconds", ENGINE, "engine"),
            *percentiles("loadtest_request_time_per_output_token_seconds", CLIENT, "client"),
            Query("max(headroom:slo_tpot:seconds)", "SLO"),
        ),
        graph(
            "Token throughput",
            "short",
            "Tokens per second. Prompt: vllm:prompt_tokens_total; output: vllm:generation_tokens_total; "
            "load test: loadtest_generation_tokens_total, which should lie on the engine's line.",
            Query(rate("vllm:prompt_tokens_total", ENGINE), "prompt"),
            Query(rate("vllm:generation_tokens_total", ENGINE), "output"),
            Query(rate("loadtest_generation_tokens_total", CLIENT), "output, seen by the load test"),
        ),
        graph(
            "Requests",
            "reqps",
            "Finished requests per second, by why they finished (vllm:request_success_total), "
            "and the load test's by outcome (loadtest_requests_total).",
            Query(rate("vllm:request_success_total", ENGINE, " by (finished_reason)"), "engine {{finished_reason}}"),
            Query(rate("loadtest_requests_total", CLIENT, " by (outcome)"), "load test {{outcome}}"),
        ),
        graph(
            "Running and waiting",
            "none",
            "vllm:num_requests_running and vllm:num_requests_waiting, all engines; loadtest_users beside them.",
            Query(f"sum(vllm:num_requests_running{{{ENGINE}}})", "running"),
            Query(f"sum(vllm:num_requests_waiting{{{ENGINE}}})", "waiting"),
            Query(f"sum(loadtest_users{{{CLIENT}}})", "load test users"),
        ),
        graph(
            "SLO: error budget burn",
            "none",
            "Share of requests over 5 minutes that missed the SLO, as a multiple of the share that SLO_PERCENTILE lets "
            "miss it (model:ttft_slo_miss:ratio_rate5m, model:tpot_slo_miss:ratio_rate5m). Above 1 the SLO is not met.",
            Query(burn("ttft"), "TTFT"),
            Query(burn("tpot"), "TPOT"),
        ),
        graph(
            "Firing alerts",
            "none",
            "ALERTS: what fires, by name. docs/runbook.md has a heading for each.",
            Query('count by (alertname, severity) (ALERTS{alertstate="firing"})', "{{severity}}: {{alertname}}"),
        ),
        graph(
            "KV cache",
            "percentunit",
            "vllm:kv_cache_usage_perc of each engine. Near 100 % the engine preempts requests and computes them again.",
            Query(f"max by (instance) (vllm:kv_cache_usage_perc{{{ENGINE}}})", "{{instance}}"),
        ),
    ]
    dashboard = (
        board.Dashboard("Headroom: Overview")
        .uid("headroom-overview")
        .tags(["headroom"])
        .description("Is it up, how fast is it, how full is it.")
        .readonly()
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(
            board.QueryVariable("model")
            .label("Model")
            .datasource(PROMETHEUS)
            .query("label_values(vllm:num_requests_running, model_name)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .all_value(".*")
            .multi(True)
        )
    )
    for panel in (*tiles, *graphs):
        dashboard.with_panel(panel)
    return dashboard.build()


def main() -> int:
    """Write, or with --check compare, every dashboard."""
    stale = []
    for name, dashboard in {"overview": overview()}.items():
        path = OUTPUT / f"{name}.json"
        built = JSONEncoder(sort_keys=True, indent=2).encode(dashboard) + "\n"
        if "--check" not in sys.argv[1:]:
            path.write_text(built)
        elif not path.is_file() or path.read_text() != built:
            stale.append(path.name)
    if stale:
        print(f"{', '.join(stale)} is not what docker/grafana/build.py builds: run it and commit the result")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
