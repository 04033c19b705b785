"""Load test dashboard: the client's measurements beside the engine's, on the same buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boards.layout import Section, dashboard
from boards.panels import NO_LOAD_TEST, SLO, graph, thresholds, tile
from boards.promql import (
    CLIENT,
    ENGINE,
    MAY_MISS,
    SLO_TPOT,
    SLO_TTFT,
    Query,
    mean,
    percentiles,
    quantile,
    rate,
    share,
    total,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard


def build() -> Dashboard:
    """Return the dashboard."""
    return dashboard(
        "load-test",
        "What the load test saw beside what the engine says, and whether the load generator kept up. Each run is "
        "marked.",
        [_run(), _latency(), _throughput(), _generator(), _search()],
    )


def _run() -> Section:
    ok = 'job="locust", outcome="ok"'
    return Section(
        "Run",
        [
            tile(
                "Users",
                "none",
                "loadtest_users: Locust users that run now.",
                total("loadtest_users", CLIENT),
                nothing=NO_LOAD_TEST,
            ),
            tile(
                "Asked for",
                "reqps",
                "loadtest_target_requests_per_second: arrival rate of an open loop; 0 in closed loop, where users wait "
                "for their answers.",
                total("loadtest_target_requests_per_second", CLIENT),
                nothing=NO_LOAD_TEST,
            ),
            tile(
                "Requests",
                "reqps",
                "loadtest_requests_total: requests that ended, however they ended.",
                rate("loadtest_requests_total", CLIENT),
                nothing=NO_LOAD_TEST,
            ),
            tile(
                "Goodput",
                "reqps",
                "loadtest_goodput_requests_total: requests that ended ok within every objective.",
                rate("loadtest_goodput_requests_total", CLIENT),
                nothing=NO_LOAD_TEST,
            ),
            tile(
                "Not ok",
                "percentunit",
                "loadtest_requests_total: share that did not end ok: error, rejected, truncated, timeout, cancelled, "
                "connect.",
                f"1 - {share(rate('loadtest_requests_total', ok), rate('loadtest_requests_total', CLIENT))}",
                limits=thresholds((None, "green"), (0.001, "orange"), (0.01, "red")),
                nothing=NO_LOAD_TEST,
            ),
            tile(
                "TTFT p95, client",
                "s",
                "loadtest_time_to_first_token_seconds: request sent to first token, 95 of 100 requests. Red from "
                "SLO_TTFT_MS on.",
                quantile(0.95, "loadtest_time_to_first_token_seconds", CLIENT),
                limit_query=SLO_TTFT,
                nothing=NO_LOAD_TEST,
            ),
            tile(
                "TPOT p95, client",
                "s",
                "loadtest_request_time_per_output_token_seconds: 95 of 100 requests. Red from SLO_TPOT_MS on.",
                quantile(0.95, "loadtest_request_time_per_output_token_seconds", CLIENT),
                limit_query=SLO_TPOT,
                nothing=NO_LOAD_TEST,
            ),
            tile(
                "Generator CPU",
                "percentunit",
                "loadtest_client_cpu_ratio: of the busiest process of the load generator, 100 % is one core. Above 90 "
                "% the latencies are the client's.",
                f"max(loadtest_client_cpu_ratio{{{CLIENT}}})",
                limits=thresholds((None, "green"), (0.7, "orange"), (0.9, "red")),
                nothing=NO_LOAD_TEST,
            ),
        ],
    )


def _sides(name: str) -> list[Query]:
    return [
        *percentiles(f"vllm:{name}", ENGINE, "engine", (0.5, 0.95)),
        *percentiles(f"loadtest_{name}", CLIENT, "client", (0.5, 0.95)),
    ]


def _latency() -> Section:
    gap = "The gap between the sides is network, the API server, or a busy client."
    return Section(
        "Latency, client beside engine",
        [
            graph(
                "TTFT",
                "s",
                "vllm:time_to_first_token_seconds, loadtest_time_to_first_token_seconds, on the same bucket edges. "
                f"The dashed line is SLO_TTFT_MS. {gap} Other clients' requests are in the engine's lines.",
                *_sides("time_to_first_token_seconds"),
                Query(SLO_TTFT, SLO),
            ),
            graph(
                "TPOT",
                "s",
                "vllm:request_time_per_output_token_seconds, loadtest_request_time_per_output_token_seconds. The "
                "dashed line is SLO_TPOT_MS.",
                *_sides("request_time_per_output_token_seconds"),
                Query(SLO_TPOT, SLO),
            ),
            graph(
                "Inter-token latency",
                "s",
                "vllm:inter_token_latency_seconds, loadtest_inter_token_latency_seconds (between chunks). A chunk with "
                "several tokens makes the client's gaps longer and fewer.",
                *_sides("inter_token_latency_seconds"),
            ),
            graph(
                "End-to-end latency",
                "s",
                "vllm:e2e_request_latency_seconds, loadtest_e2e_request_latency_seconds: until the last token.",
                *_sides("e2e_request_latency_seconds"),
            ),
            graph(
                "Mean TTFT",
                "s",
                "vllm:time_to_first_token_seconds, loadtest_time_to_first_token_seconds: means, which no bucket blurs: "
                "the difference is what lies between client and engine.",
                Query(mean("vllm:time_to_first_token_seconds", ENGINE), "engine"),
                Query(mean("loadtest_time_to_first_token_seconds", CLIENT), "client"),
            ),
            graph(
                "Mean queue time",
                "s",
                "vllm:request_queue_time_seconds: mean wait for a place in the batch, the part of TTFT that load "
                "causes.",
                Query(mean("vllm:request_queue_time_seconds", ENGINE), "engine"),
            ),
        ],
    )


def _throughput() -> Section:
    return Section(
        "Throughput, client beside engine",
        [
            graph(
                "Requests",
                "reqps",
                "vllm:request_success_total, loadtest_requests_total by outcome, and what was asked for "
                "(loadtest_target_requests_per_second).",
                Query(rate("vllm:request_success_total", ENGINE), "engine"),
                Query(rate("loadtest_requests_total", CLIENT, "outcome"), "client {{outcome}}"),
                Query(total("loadtest_target_requests_per_second", CLIENT), "asked for"),
                width=8,
            ),
            graph(
                "Output tokens",
                "suffix:tok/s",
                "vllm:generation_tokens_total, loadtest_generation_tokens_total. The client counts a request's tokens "
                "when it has ended, the engine as they come; over a run both give the same number.",
                Query(rate("vllm:generation_tokens_total", ENGINE), "engine"),
                Query(rate("loadtest_generation_tokens_total", CLIENT), "client"),
                width=8,
            ),
            graph(
                "Prompt tokens",
                "suffix:tok/s",
                "vllm:prompt_tokens_total, loadtest_prompt_tokens_total.",
                Query(rate("vllm:prompt_tokens_total", ENGINE), "engine"),
                Query(rate("loadtest_prompt_tokens_total", CLIENT), "client"),
                width=8,
            ),
            graph(
                "In flight",
                "none",
                "loadtest_users beside vllm:num_requests_running and vllm:num_requests_waiting. In closed loop users "
                "are running and waiting together.",
                Query(total("vllm:num_requests_running", ENGINE), "engine running"),
                Query(total("vllm:num_requests_waiting", ENGINE), "engine waiting"),
                Query(total("loadtest_users", CLIENT), "client users"),
                width=8,
            ),
            graph(
                "Goodput",
                "reqps",
                "loadtest_goodput_requests_total of loadtest_requests_total: ended ok within every objective. Where "
                "goodput leaves the request rate, the box is full for this SLO.",
                Query(rate("loadtest_requests_total", CLIENT), "client all"),
                Query(rate("loadtest_goodput_requests_total", CLIENT), "client good"),
                width=8,
                nothing=NO_LOAD_TEST,
            ),
            graph(
                "Prefix cache hits",
                "percentunit",
                "vllm:prefix_cache_hits_total of vllm:prefix_cache_queries_total. Above 0 with prompts meant to be "
                "unique: the figures flatter.",
                Query(
                    share(
                        rate("vllm:prefix_cache_hits_total", ENGINE), rate("vllm:prefix_cache_queries_total", ENGINE)
                    ),
                    "engine",
                ),
                width=8,
                most=1,
            ),
        ],
    )


def _generator() -> Section:
    return Section(
        "Did the load generator keep up?",
        [
            graph(
                "Client lag",
                "s",
                "loadtest_client_lag_seconds: bytes in the kernel to bytes read. Small against TTFT and TPOT, or the "
                "generator is too busy.",
                *percentiles("loadtest_client_lag_seconds", CLIENT, "client"),
                width=8,
                nothing=NO_LOAD_TEST,
            ),
            graph(
                "Schedule delay",
                "s",
                "loadtest_schedule_delay_seconds: open loop, request due to request sent. More than milliseconds: it "
                "could not send as fast as asked.",
                *percentiles("loadtest_schedule_delay_seconds", CLIENT, "client"),
                width=8,
                nothing="No open loop",
            ),
            graph(
                "Generator CPU",
                "percentunit",
                "loadtest_client_cpu_ratio: of the busiest process, 100 % is one core. LOCUST_WORKERS gives it more.",
                Query(f"max(loadtest_client_cpu_ratio{{{CLIENT}}})", "busiest process"),
                width=8,
                nothing=NO_LOAD_TEST,
                limits=thresholds((None, "green"), (0.9, "red")),
            ),
        ],
    )


def _search() -> Section:
    interval = "headroom_capacity_search_requests_per_second"
    good = "headroom_capacity_search_good_ratio"

    def bound(metric: str, name: str) -> str:
        return f'max({metric}{{{CLIENT}, bound="{name}"}})'

    return Section(
        "Capacity search",
        [
            graph(
                "Capacity, as the search knows it",
                "reqps",
                "headroom_capacity_search_requests_per_second: the interval that holds the highest rate at which the "
                "SLO is met; it narrows while docker compose run --rm capacity runs. headroom_capacity_search_rate: "
                "the rate that is tried.",
                Query(bound(interval, "low"), "low"),
                Query(bound(interval, "mid"), "mid"),
                Query(bound(interval, "high"), "high"),
                Query(f"max(headroom_capacity_search_rate{{{CLIENT}}})", "tried"),
                nothing="No capacity search",
            ),
            graph(
                "Requests of the stage that met the SLO",
                "percentunit",
                "headroom_capacity_search_good_ratio: the share, and its 95 % interval. The dashed line is "
                "SLO_PERCENTILE.",
                Query(bound(good, "low"), "low"),
                Query(bound(good, "mid"), "share"),
                Query(bound(good, "high"), "high"),
                Query(f"1 - ({MAY_MISS})", SLO),
                most=1,
                nothing="No capacity search",
            ),
        ],
    )
