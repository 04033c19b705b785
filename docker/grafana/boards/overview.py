"""Overview dashboard: state, cause and start of a problem, in the order in which an on-call person asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boards.layout import Section, dashboard
from boards.panels import FULL_IS_BAD, MORE_IS_BAD, NO_LOAD_TEST, SLO, dial, graph, rows, thresholds, tile
from boards.promql import (
    CLIENT,
    ENGINE,
    MAY_MISS,
    MODEL,
    SLO_TPOT,
    SLO_TTFT,
    TARGET,
    Query,
    percentiles,
    quantile,
    rate,
    share,
    total,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

TTFT_MISS = f"model:ttft_slo_miss:ratio_rate5m{{{MODEL}}}"
TPOT_MISS = f"model:tpot_slo_miss:ratio_rate5m{{{MODEL}}}"
FIRING = 'ALERTS{alertstate="firing"}'


def build() -> Dashboard:
    """Return the dashboard."""
    return dashboard(
        "overview",
        "Is it up, how fast is it, how full is it; if something is wrong, the first line is not green.",
        [_now(), _load(), _latency(), _queue()],
    )


def _now() -> Section:
    http = f'{TARGET}, handler!~"/health|/metrics"'
    return Section(
        "Is anything wrong?",
        [
            tile(
                "Firing alerts",
                "none",
                "ALERTS: how many fire now, those for information not counted. Which: the table below; "
                "what to do: docs/runbook.md.",
                'count(ALERTS{alertstate="firing", severity!="info"}) or vector(0)',
                limits=MORE_IS_BAD,
            ),
            tile(
                "Engines up",
                "none",
                "up: engines that answer Prometheus. A stopped engine vanishes from the count.",
                f"sum(up{{{TARGET}}}) or vector(0)",
                limits=thresholds((None, "red"), (1, "green")),
            ),
            tile(
                "TTFT p95",
                "s",
                "vllm:time_to_first_token_seconds: 95 of 100 requests got their first token within this time. "
                "Red from SLO_TTFT_MS on.",
                quantile(0.95, "vllm:time_to_first_token_seconds", ENGINE),
                limit_query=SLO_TTFT,
            ),
            tile(
                "TPOT p95",
                "s",
                "vllm:request_time_per_output_token_seconds: time per output token after the first, one value a "
                "request. Red from SLO_TPOT_MS on.",
                quantile(0.95, "vllm:request_time_per_output_token_seconds", ENGINE),
                limit_query=SLO_TPOT,
            ),
            tile(
                "Missed SLO",
                "percentunit",
                "model:ttft_slo_miss:ratio_rate5m, model:tpot_slo_miss:ratio_rate5m: share of the requests of 5 "
                "minutes that missed it, of the worse objective and the worst model; exact. Red from what "
                "SLO_PERCENTILE lets miss it.",
                f"max({TTFT_MISS} > {TPOT_MISS} or {TPOT_MISS})",
                limit_query=MAY_MISS,
            ),
            tile(
                "HTTP errors",
                "percentunit",
                "http_requests_total: share of the answers that were 5xx. Rejections of a full queue are 503.",
                share(
                    f'(sum(rate(http_requests_total{{{TARGET}, status="5xx"}}[$__rate_interval])) or vector(0))',
                    rate("http_requests_total", http),
                ),
                limits=thresholds((None, "green"), (0.01, "red")),
            ),
            tile(
                "Waiting",
                "none",
                "vllm:num_requests_waiting: requests in the queue. More than none for long means: full.",
                total("vllm:num_requests_waiting", ENGINE),
                limits=thresholds((None, "green"), (1, "orange")),
            ),
            tile(
                "KV cache",
                "percentunit",
                "vllm:kv_cache_usage_perc: the fullest engine's share of KV cache blocks in use. At 100 % it preempts.",
                f"max(vllm:kv_cache_usage_perc{{{ENGINE}}})",
                limits=FULL_IS_BAD,
            ),
            rows(
                "What fires",
                "s",
                "ALERTS, ALERTS_FOR_STATE: every firing alert and since when its condition holds. cause: load means "
                "that a load test, if one runs, explains it. docs/runbook.md has a heading for each.",
                "sort_desc(max by (severity, alertname, cause, model_name, instance) "
                f"(time() - ALERTS_FOR_STATE and ignoring (alertstate) {FIRING}))",
                {
                    "severity": "Severity",
                    "alertname": "Alert",
                    "cause": "Cause",
                    "model_name": "Model",
                    "instance": "Instance",
                    "Value": "For",
                },
                nothing="Nothing fires",
            ),
            graph(
                "Error budget burn",
                "none",
                "model:ttft_slo_miss:ratio_rate5m, model:tpot_slo_miss:ratio_rate5m: share of requests of 5 minutes "
                "that missed the objective, as a multiple of what SLO_PERCENTILE lets miss it. Above 1 the SLO is not "
                "met.",
                Query(f"max({TTFT_MISS}) / ({MAY_MISS})", "TTFT"),
                Query(f"max({TPOT_MISS}) / ({MAY_MISS})", "TPOT"),
                limits=thresholds((None, "green"), (1, "red")),
            ),
        ],
    )


def _load() -> Section:
    return Section(
        "How much does it carry?",
        [
            dial(
                "Capacity in use",
                "model:capacity_load_valid:ratio_rate2m: requests that come in, over the highest rate at which the SLO "
                "is met (docker compose run --rm capacity). Above 100 %, requests miss it. No value: nothing was "
                "measured yet, or what runs is not what was measured; model:capacity_invalid:reason says why.",
                f"max(model:capacity_load_valid:ratio_rate2m{{{MODEL}}})",
                limits=FULL_IS_BAD,
                nothing="Not measured: run capacity",
            ),
            tile(
                "Requests",
                "reqps",
                "vllm:request_success_total: requests that the engine finished, per second, whatever the reason.",
                rate("vllm:request_success_total", ENGINE),
            ),
            tile(
                "Output tokens",
                "suffix:tok/s",
                "vllm:generation_tokens_total: tokens that the engine generated, per second.",
                rate("vllm:generation_tokens_total", ENGINE),
            ),
            tile(
                "Running",
                "none",
                "vllm:num_requests_running: requests in the current batch.",
                total("vllm:num_requests_running", ENGINE),
            ),
            tile(
                "Prefix cache hits",
                "percentunit",
                "vllm:prefix_cache_hits_total of vllm:prefix_cache_queries_total: prompt tokens that need no prefill.",
                share(rate("vllm:prefix_cache_hits_total", ENGINE), rate("vllm:prefix_cache_queries_total", ENGINE)),
            ),
            tile(
                "Engine starts, 15 min",
                "none",
                "instance:engine_restarts:count15m: how often engines started anew, the first start and an engine that "
                "is added not counted. Each lost the requests that ran.",
                'sum(instance:engine_restarts:count15m{instance=~"$instance"}) or vector(0)',
                limits=MORE_IS_BAD,
            ),
            tile(
                "Load test users",
                "none",
                "loadtest_users: Locust users that run now. Not 0: somebody tests on purpose.",
                total("loadtest_users", CLIENT),
                limits=thresholds((None, "text"), (1, "orange")),
                nothing=NO_LOAD_TEST,
            ),
        ],
    )


def _latency() -> Section:
    return Section(
        "How fast?",
        [
            graph(
                "TTFT",
                "s",
                "vllm:time_to_first_token_seconds, of all requests. The dashed line is SLO_TTFT_MS. p50 near p99 and "
                "both high: every request queues; only p99 high: some prompts are long.",
                *percentiles("vllm:time_to_first_token_seconds", ENGINE, "engine"),
                Query(SLO_TTFT, SLO),
            ),
            graph(
                "TPOT",
                "s",
                "vllm:request_time_per_output_token_seconds, one value a request. The dashed line is SLO_TPOT_MS. It "
                "rises with the batch: compare Running.",
                *percentiles("vllm:request_time_per_output_token_seconds", ENGINE, "engine"),
                Query(SLO_TPOT, SLO),
            ),
        ],
    )


def _queue() -> Section:
    return Section(
        "How full?",
        [
            graph(
                "Running and waiting",
                "none",
                "vllm:num_requests_running, vllm:num_requests_waiting, all engines. Waiting that rises while running "
                "stands still: more comes than it can carry.",
                Query(total("vllm:num_requests_running", ENGINE), "running"),
                Query(total("vllm:num_requests_waiting", ENGINE), "waiting"),
            ),
            graph(
                "KV cache",
                "percentunit",
                "vllm:kv_cache_usage_perc of each engine. Near 100 % it preempts requests and computes them again.",
                Query(f"max by (instance) (vllm:kv_cache_usage_perc{{{ENGINE}}})", "{{instance}}"),
                most=1,
                limits=thresholds((None, "green"), (0.9, "red")),
            ),
            graph(
                "Token throughput",
                "suffix:tok/s",
                "vllm:prompt_tokens_total, vllm:generation_tokens_total: tokens per second. Flat while Waiting rises: "
                "this is what the box gives.",
                Query(rate("vllm:prompt_tokens_total", ENGINE), "prompt"),
                Query(rate("vllm:generation_tokens_total", ENGINE), "output"),
            ),
            graph(
                "Finished requests",
                "reqps",
                "vllm:request_success_total by finished_reason: stop and length are good ends; abort: the client left; "
                "error: the engine failed.",
                Query(rate("vllm:request_success_total", ENGINE, "finished_reason"), "{{finished_reason}}"),
                stacked=True,
            ),
        ],
    )
