"""The server's own counters before and after a run: what our numbers are held against."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import requests
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from loadtest.client.target import Target

_TIMEOUT_S = 10
_SETTLE_S = 10.0
_SETTLE_STEP_S = 0.3


@dataclass(frozen=True, slots=True)
class ServerCounters:
    """vLLM's counters at one moment, added up over engines; tokens and requests since the server started."""

    prompt_tokens: float = 0.0
    generation_tokens: float = 0.0
    cache_queries: float = 0.0  # prompt tokens looked up in the prefix cache
    cache_hits: float = 0.0
    ttft_sum: float = 0.0  # seconds
    ttft_count: float = 0.0
    busy: float = 0.0  # requests that run or wait at this moment
    ended: dict[str, float] = field(default_factory=dict)  # requests by finished_reason


_FIELDS = {
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:generation_tokens_total": "generation_tokens",
    "vllm:prefix_cache_queries_total": "cache_queries",
    "vllm:prefix_cache_hits_total": "cache_hits",
    "vllm:time_to_first_token_seconds_sum": "ttft_sum",
    "vllm:time_to_first_token_seconds_count": "ttft_count",
    "vllm:num_requests_running": "busy",
    "vllm:num_requests_waiting": "busy",
}
_ENDED = "vllm:request_success_total"


def parse_counters(page: str) -> ServerCounters | None:
    """Read a metrics page; None when it has not vLLM's token counters."""
    sums: defaultdict[str, float] = defaultdict(float)
    ended: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name in _FIELDS:
                sums[_FIELDS[sample.name]] += sample.value
            elif sample.name == _ENDED:
                ended[sample.labels.get("finished_reason", "")] += sample.value
    if "generation_tokens" not in sums:
        return None
    return ServerCounters(**sums, ended=dict(ended))


def read_counters(target: Target) -> ServerCounters | None:
    """Ask the server for its counters now; None when it has none to give."""
    try:
        answer = requests.get(target.url("/metrics"), timeout=_TIMEOUT_S)
        answer.raise_for_status()
        return parse_counters(answer.text)
    except (requests.RequestException, ValueError):
        return None


def read_settled_counters(target: Target) -> ServerCounters | None:
    """Ask until nothing runs on the server and its counters stand still, at most for some seconds."""
    deadline = time.monotonic() + _SETTLE_S
    last = read_counters(target)
    while last is not None and time.monotonic() < deadline:
        time.sleep(_SETTLE_STEP_S)
        now = read_counters(target)
        if now is None or (now.busy == 0 and now == last):
            return now
        last = now
    return last


def difference(before: ServerCounters, after: ServerCounters) -> ServerCounters:
    """What the server counted in between; `busy` is that of `before`. Below 0 means that it was restarted."""
    ended = {reason: count - before.ended.get(reason, 0.0) for reason, count in after.ended.items()}
    return ServerCounters(
        prompt_tokens=after.prompt_tokens - before.prompt_tokens,
        generation_tokens=after.generation_tokens - before.generation_tokens,
        cache_queries=after.cache_queries - before.cache_queries,
        cache_hits=after.cache_hits - before.cache_hits,
        ttft_sum=after.ttft_sum - before.ttft_sum,
        ttft_count=after.ttft_count - before.ttft_count,
        busy=before.busy,
        ended=ended,
    )
