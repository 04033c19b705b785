"""The server's own counters before and after a run, for comparison with the client's totals."""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from loadtest.client.access import PageError, read_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from loadtest.client.target import Target

_TIMEOUT_S = 10
_SETTLE_S = 10.0
_SETTLE_STEP_S = 0.3


@dataclass(frozen=True, slots=True)
class ServerCounters:
    """vLLM's counters at one moment, summed over engines; tokens and requests since each engine started."""

    prompt_tokens: float = 0.0
    generation_tokens: float = 0.0
    cache_queries: float = 0.0  # prompt tokens looked up in the prefix cache
    cache_hits: float = 0.0
    ttft_sum: float = 0.0  # seconds
    ttft_count: float = 0.0
    busy: float = 0.0  # requests running or waiting now
    started: float = 0.0  # of one engine: Unix time of its process start; 0 if not reported
    ended: dict[str, float] = field(default_factory=dict)  # requests by finished_reason
    engines: dict[str, ServerCounters] = field(default_factory=dict)  # each engine's own, by its address
    joined: int = 0  # of a difference: number of engines that joined
    gone: tuple[str, ...] = ()  # of a difference: engines that stopped or restarted, so their counters are lost


_FIELDS = {
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:generation_tokens_total": "generation_tokens",
    "vllm:prefix_cache_queries_total": "cache_queries",
    "vllm:prefix_cache_hits_total": "cache_hits",
    "vllm:time_to_first_token_seconds_sum": "ttft_sum",
    "vllm:time_to_first_token_seconds_count": "ttft_count",
    "vllm:num_requests_running": "busy",
    "vllm:num_requests_waiting": "busy",
    "process_start_time_seconds": "started",
}
_ENDED = "vllm:request_success_total"
_SUMS = tuple(field.name for field in fields(ServerCounters) if field.type == "float" and field.name != "started")


def parse_counters(page: str) -> ServerCounters | None:
    """Parse a metrics page; return None if it lacks vLLM's token counters. Raises ValueError if it is no such page."""
    sums: defaultdict[str, Any] = defaultdict(float)
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


def add_up(engines: Mapping[str, ServerCounters], gone: Iterable[str] = ()) -> ServerCounters:
    """Return the sum over `engines`, and each engine's own counters with it."""
    sums = {name: sum(getattr(engine, name) for engine in engines.values()) for name in _SUMS}
    ended: defaultdict[str, float] = defaultdict(float)
    for engine in engines.values():
        for reason, count in engine.ended.items():
            ended[reason] += count
    return ServerCounters(**sums, ended=dict(ended), engines=dict(engines), gone=tuple(gone))


def engine_targets(target: Target) -> dict[str, Target]:
    """Return each engine, by its address; a host name stands for all its addresses."""
    if not target.engines:
        return {target.authority: target}
    found = {}
    for engine in target.engines:
        addresses = {engine.host}
        # A certificate is valid for the name only.
        if not engine.tls:
            family = socket.AF_INET6 if ":" in engine.host else socket.AF_INET
            try:
                addresses = {str(at[0]) for *_, at in socket.getaddrinfo(engine.host, engine.port, family)}
            except OSError:
                addresses = set()  # no engine has this name at present
        for address in addresses:
            at = replace(engine, host=address)
            found[at.authority] = at
    return found


def read_metrics(target: Target, timeout_s: float) -> str:
    """Return the metrics page of one engine, "" if it has none."""
    try:
        page = read_page(target, f"{target.root}/metrics", timeout_s)
    except PageError:
        return ""
    return page.text if page.ok else ""


def read_counters(target: Target) -> ServerCounters | None:
    """Read the counters of every engine; None if no engine answers with counters."""
    engines = {}
    for address, engine in sorted(engine_targets(target).items()):
        try:
            counters = parse_counters(read_metrics(engine, _TIMEOUT_S))
        except ValueError:
            continue
        if counters is not None:
            engines[address] = counters
    return add_up(engines) if engines else None


def read_settled_counters(target: Target) -> ServerCounters | None:
    """Read the counters until nothing runs on the server and they are stable, for 10 s at most.

    If the server stops meanwhile, as when the whole stack stops, its last counters are returned.
    """
    deadline = time.monotonic() + _SETTLE_S
    last = read_counters(target)
    while last is not None and time.monotonic() < deadline:
        time.sleep(_SETTLE_STEP_S)
        now = read_counters(target)
        if now is None or (now.busy == 0 and now == last):
            return last
        last = now
    return last


def difference(before: ServerCounters, after: ServerCounters) -> ServerCounters:
    """Return the increase of the counters from `before` to `after`; `busy` is that of `before`.

    An engine that joined meanwhile counts in full. An engine that left, or restarted and counts from 0, is `gone`.
    """
    parts, gone = {}, []
    for address, now in after.engines.items():
        then = before.engines.get(address)
        if then is not None and then.started != now.started:
            gone.append(address)
            then = None
        parts[address] = _minus(now, then or ServerCounters())
    gone += [address for address in before.engines if address not in after.engines]
    return replace(add_up(parts, gone), joined=len(after.engines.keys() - before.engines.keys()))


def _minus(after: ServerCounters, before: ServerCounters) -> ServerCounters:
    sums = {name: getattr(after, name) - getattr(before, name) for name in _SUMS}
    ended = {reason: count - before.ended.get(reason, 0.0) for reason, count in after.ended.items()}
    return ServerCounters(**{**sums, "busy": before.busy}, ended=ended)
