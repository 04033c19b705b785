"""Engine dashboard: queue, latency by phase, work per step, lengths, finish reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boards.layout import Section, dashboard
from boards.panels import SLO, graph, heat_map, rows, thresholds
from boards.promql import ENGINE, SLO_TPOT, SLO_TTFT, TARGET, Query, mean, percentiles, rate, share, total

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard


def build() -> Dashboard:
    """Return the dashboard."""
    return dashboard(
        "engine",
        "Why is it slow: the queue, the phases of a request, the work of a step, what is asked of it.",
        [_queue(), _latency(), _work(), _requests(), _process()],
    )


def _queue() -> Section:
    return Section(
        "Queue and KV cache",
        [
            graph(
                "Running and waiting by engine",
                "none",
                "vllm:num_requests_running, vllm:num_requests_waiting. Engines that differ: requests are shared out "
                "badly.",
                Query(total("vllm:num_requests_running", ENGINE, "instance"), "{{instance}} running"),
                Query(total("vllm:num_requests_waiting", ENGINE, "instance"), "{{instance}} waiting"),
                width=8,
            ),
            graph(
                "Waiting by reason",
                "none",
                "vllm:num_requests_waiting_by_reason. capacity: the batch or the KV cache is full; deferred: held back "
                "for something else, such as a transfer of KV blocks.",
                Query(total("vllm:num_requests_waiting_by_reason", ENGINE, "reason"), "{{reason}}"),
                width=8,
                stacked=True,
            ),
            graph(
                "Queue time",
                "s",
                "vllm:request_queue_time_seconds: arrival to the first place in a batch. The dashed line is "
                "SLO_TTFT_MS: what waits that long has missed it.",
                *percentiles("vllm:request_queue_time_seconds", ENGINE, "engine"),
                Query(SLO_TTFT, SLO),
                width=8,
            ),
            graph(
                "KV cache",
                "percentunit",
                "vllm:kv_cache_usage_perc of each engine: blocks in use. Near 100 % it preempts requests.",
                Query(f"max by (instance) (vllm:kv_cache_usage_perc{{{ENGINE}}})", "{{instance}}"),
                width=8,
                most=1,
                limits=thresholds((None, "green"), (0.9, "red")),
            ),
            graph(
                "Preemptions",
                "suffix:/s",
                "vllm:num_preemptions_total: requests thrown out of the KV cache, to be computed again. None is right.",
                Query(rate("vllm:num_preemptions_total", ENGINE, "instance"), "{{instance}}"),
                width=8,
            ),
            graph(
                "Admission rejections",
                "reqps",
                "vllm:admission_rejections_total: answered 503 because the queue was at --max-num-queued-reqs or "
                "--max-num-queued-tokens. None without such a limit.",
                Query(rate("vllm:admission_rejections_total", ENGINE, "reason"), "{{reason}}"),
                width=8,
            ),
        ],
    )


def _latency() -> Section:
    return Section(
        "Latency",
        [
            graph(
                "TTFT",
                "s",
                "vllm:time_to_first_token_seconds: arrival at the engine's server to the first token. The dashed line "
                "is SLO_TTFT_MS.",
                *percentiles("vllm:time_to_first_token_seconds", ENGINE, "engine"),
                Query(SLO_TTFT, SLO),
            ),
            graph(
                "TPOT",
                "s",
                "vllm:request_time_per_output_token_seconds: time per output token after the first, one value a "
                "request. The dashed line is SLO_TPOT_MS. A request of one token counts as 0.",
                *percentiles("vllm:request_time_per_output_token_seconds", ENGINE, "engine"),
                Query(SLO_TPOT, SLO),
            ),
            graph(
                "Inter-token latency",
                "s",
                "vllm:inter_token_latency_seconds: between two tokens of a request, all pooled. A p99 far above p50: "
                "long prefills hold up decode steps.",
                *percentiles("vllm:inter_token_latency_seconds", ENGINE, "engine"),
            ),
            graph(
                "End-to-end latency",
                "s",
                "vllm:e2e_request_latency_seconds: arrival to the last token. It follows the length of the answers.",
                *percentiles("vllm:e2e_request_latency_seconds", ENGINE, "engine"),
            ),
            graph(
                "Mean time by phase",
                "s",
                "vllm:request_queue_time_seconds, vllm:request_prefill_time_seconds, vllm:request_decode_time_seconds: "
                "means, stacked. Queue: too many requests; prefill: long prompts; decode: long answers or a large "
                "batch.",
                *(
                    Query(mean(f"vllm:request_{phase}_time_seconds", ENGINE), phase)
                    for phase in ("queue", "prefill", "decode")
                ),
                stacked=True,
            ),
            heat_map(
                "TTFT distribution",
                "vllm:time_to_first_token_seconds: requests per second in each bucket. Two bands are two kinds of "
                "requests, which a percentile hides.",
                rate("vllm:time_to_first_token_seconds_bucket", ENGINE, "le"),
            ),
        ],
    )


def _work() -> Section:
    return Section(
        "Work of a step",
        [
            graph(
                "Steps",
                "suffix:/s",
                "vllm:iteration_tokens_total_count: steps of the engine per second. None while requests run: it "
                "stalls.",
                Query(rate("vllm:iteration_tokens_total_count", ENGINE, "instance"), "{{instance}}"),
                width=8,
            ),
            graph(
                "Tokens per step",
                "none",
                "vllm:iteration_tokens_total: mean number of prompt and output tokens that one step computes. It grows "
                "with the batch until the hardware is full.",
                Query(mean("vllm:iteration_tokens_total", ENGINE, "instance"), "{{instance}}"),
                width=8,
            ),
            graph(
                "Token throughput",
                "suffix:tok/s",
                "vllm:prompt_tokens_total, vllm:generation_tokens_total: tokens per second, all engines.",
                Query(rate("vllm:prompt_tokens_total", ENGINE), "prompt"),
                Query(rate("vllm:generation_tokens_total", ENGINE), "output"),
                width=8,
            ),
            graph(
                "Prompt tokens by source",
                "suffix:tok/s",
                "vllm:prompt_tokens_by_source_total: computed here, found in the prefix cache, or brought from "
                "elsewhere.",
                Query(rate("vllm:prompt_tokens_by_source_total", ENGINE, "source"), "{{source}}"),
                stacked=True,
            ),
            graph(
                "Prefix cache hits",
                "percentunit",
                "vllm:prefix_cache_hits_total of vllm:prefix_cache_queries_total: prompt tokens that need no prefill.",
                Query(
                    share(
                        rate("vllm:prefix_cache_hits_total", ENGINE), rate("vllm:prefix_cache_queries_total", ENGINE)
                    ),
                    "hits",
                ),
                most=1,
            ),
        ],
    )


def _requests() -> Section:
    return Section(
        "Requests",
        [
            graph(
                "Prompt length",
                "suffix:tokens",
                "vllm:request_prompt_tokens: longer prompts mean longer prefill and more KV cache.",
                *percentiles("vllm:request_prompt_tokens", ENGINE),
                width=8,
            ),
            graph(
                "Output length",
                "suffix:tokens",
                "vllm:request_generation_tokens: longer answers hold their place in the batch longer.",
                *percentiles("vllm:request_generation_tokens", ENGINE),
                width=8,
            ),
            graph(
                "Finished requests",
                "reqps",
                "vllm:request_success_total by finished_reason: stop and length are good ends; abort: the client left; "
                "error: the engine failed.",
                Query(rate("vllm:request_success_total", ENGINE, "finished_reason"), "{{finished_reason}}"),
                width=8,
                stacked=True,
            ),
            graph(
                "HTTP answers",
                "reqps",
                "http_requests_total by path and status, scrapes and health checks left out. 4xx: the clients' "
                "mistakes; 5xx: the server's.",
                Query(
                    rate("http_requests_total", f'{TARGET}, handler!~"/health|/metrics"', "handler", "status"),
                    "{{handler}} {{status}}",
                ),
            ),
            graph(
                "HTTP duration",
                "s",
                "http_request_duration_seconds: mean until the last byte, of streams too; tokenizing and networks "
                "included.",
                Query(
                    mean("http_request_duration_seconds", f'{TARGET}, handler!~"/health|/metrics"', "handler"),
                    "{{handler}}",
                ),
            ),
        ],
    )


def _process() -> Section:
    return Section(
        "Process",
        [
            graph(
                "API server CPU",
                "none",
                "process_cpu_seconds_total: cores that the API server uses, the engine's own process not counted. Near "
                "1 it is the bottleneck: one process takes requests and sends tokens.",
                Query(rate("process_cpu_seconds_total", TARGET, "instance"), "{{instance}}"),
                width=8,
                nothing="No engine",
                limits=thresholds((None, "green"), (0.9, "red")),
            ),
            graph(
                "API server memory",
                "bytes",
                "process_resident_memory_bytes of the API server, the engine's own process not counted.",
                Query(total("process_resident_memory_bytes", TARGET, "instance"), "{{instance}}"),
                width=8,
                nothing="No engine",
            ),
            rows(
                "KV cache, as configured",
                "none",
                "vllm:cache_config_info: tokens that fit, and so many requests of the full --max-model-len at once.",
                "max by (instance, kv_cache_size_tokens, kv_cache_max_concurrency, block_size, num_gpu_blocks) "
                f"(vllm:cache_config_info{{{TARGET}}})",
                {
                    "instance": "Engine",
                    "kv_cache_size_tokens": "Tokens",
                    "kv_cache_max_concurrency": "Full-length requests",
                    "block_size": "Tokens a block",
                    "num_gpu_blocks": "Blocks",
                    "Value": "Up",
                },
                nothing="No engine",
                width=8,
            ),
        ],
    )
