"""Sample the engines' metrics during a stage, and summarize them."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import gevent
import psutil

from loadtest.capacity.engine_sample import EngineSample
from loadtest.client.access import PageError, read_page
from loadtest.results.server_counters import engine_targets, read_metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from loadtest.client.target import Target

INTERVAL_S = 1.0
_TIMEOUT_S = 5.0
_LINE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_REASON = re.compile(r'reason="(\w+)"')
_EDGE = re.compile(r'le="([^"]+)"')


_SUMS = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:num_preemptions_total": "preemptions",
    "vllm:admission_rejections_total": "rejections",
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:generation_tokens_total": "output_tokens",
    "vllm:iteration_tokens_total_count": "steps",
    "vllm:iteration_tokens_total_sum": "step_tokens",
    "process_cpu_seconds_total": "front_end_cpu_s",
    "vllm:request_queue_time_seconds_sum": "queue_s",
    "vllm:request_prefill_time_seconds_sum": "prefill_s",
    "vllm:request_decode_time_seconds_sum": "decode_s",
    "vllm:request_decode_time_seconds_count": "ended",
    "vllm:time_to_first_token_seconds_sum": "ttft_s",
    "vllm:time_to_first_token_seconds_count": "first_tokens",
}
_ADDED = (*_SUMS.values(), "waiting_capacity", "waiting_deferred")
_BY_REASON = "vllm:num_requests_waiting_by_reason"
_KV = "vllm:kv_cache_usage_perc"
_STEP_TOKENS = "vllm:iteration_tokens_total_bucket"
# Share of the steps that are no larger than the largest one of `summarize_samples`.
_NEARLY_ALL_STEPS = 0.99
_CACHE_CONFIG = "vllm:cache_config_info"


def parse_sample(page: str, at: float, host_cpu: float) -> EngineSample | None:
    """Parse a metrics page; None if it is not vLLM's. A full parser would cost the load generator ten times as much."""
    values: dict[str, Any] = {}
    steps_up_to: defaultdict[float, float] = defaultdict(float)
    for line in page.splitlines():
        if not line.startswith(("vllm:", "process_cpu")):
            continue
        name = line.split("{", 1)[0].split(" ", 1)[0]
        if name in _SUMS:
            field = _SUMS[name]
            values[field] = values.get(field, 0.0) + float(line.rsplit(" ", 1)[1])
        elif name == _BY_REASON and (reason := _REASON.search(line)):
            field = f"waiting_{reason[1]}"
            values[field] = values.get(field, 0.0) + float(line.rsplit(" ", 1)[1])
        elif name == _STEP_TOKENS and (edge := _EDGE.search(line)):
            steps_up_to[float(edge[1])] += float(line.rsplit(" ", 1)[1])
        elif name == _KV:
            values["kv_usage"] = max(values.get("kv_usage", 0.0), float(line.rsplit(" ", 1)[1]))
    if "running" not in values:
        return None
    known = {field.name for field in dataclasses.fields(EngineSample)}
    kept = {name: value for name, value in values.items() if name in known}
    return EngineSample(at=at, host_cpu=host_cpu, steps_up_to=dict(steps_up_to), **kept)


def read_cache_config(target: Target) -> dict[str, str]:
    """Return the labels of `vllm:cache_config_info`, one engine's cache settings; empty without them."""
    for line in read_metrics(target, _TIMEOUT_S).splitlines():
        if line.startswith(_CACHE_CONFIG) and (found := _LINE.match(line)):
            return {name: value for name, value in _LABEL.findall(found["labels"] or "") if value != "None"}
    return {}


def theoretical_concurrency(cache_config: Mapping[str, str], engines: int, tokens: float) -> float | None:
    """Return how many requests of `tokens` fit into the KV cache of all engines: blocks * block size / tokens."""
    try:
        return engines * int(cache_config["num_gpu_blocks"]) * int(cache_config["block_size"]) / tokens
    except (KeyError, ValueError, ZeroDivisionError):
        return None


def read_version(target: Target) -> str | None:
    """Return the version from vLLM's /version; None without it."""
    try:
        page = read_page(target, f"{target.root}/version", _TIMEOUT_S)
        return str(json.loads(page.body)["version"]) if page.ok else None
    except (PageError, ValueError, KeyError, TypeError, RecursionError):
        return None


def read_sample(target: Target) -> EngineSample | None:
    """Sample every engine of `target` now; None if one does not answer, as the summed counters would fall."""
    host_cpu = psutil.cpu_percent() / 100
    engines = {}
    for address, engine in sorted(engine_targets(target).items()):
        sample = parse_sample(read_metrics(engine, _TIMEOUT_S), time.monotonic(), host_cpu)
        if sample is None:
            return None
        engines[address] = sample
    return add_up(engines) if engines else None


def add_up(engines: Mapping[str, EngineSample]) -> EngineSample:
    """Return the sum of `engines` (at least one), which keeps them in its `engines`."""
    samples = engines.values()
    steps_up_to: defaultdict[float, float] = defaultdict(float)
    for sample in samples:
        for edge, steps in sample.steps_up_to.items():
            steps_up_to[edge] += steps
    return EngineSample(
        at=max(sample.at for sample in samples),
        host_cpu=max(sample.host_cpu for sample in samples),
        kv_usage=max(sample.kv_usage for sample in samples),
        engines=engines,
        steps_up_to=dict(steps_up_to),
        **{name: sum(getattr(sample, name) for sample in samples) for name in _ADDED},
    )


def by_engine(samples: Iterable[EngineSample]) -> list[list[EngineSample]]:
    """Return the series of samples of each engine."""
    series: defaultdict[str, list[EngineSample]] = defaultdict(list)
    for sample in samples:
        for address, own in (sample.engines or {"": sample}).items():
            series[address].append(own)
    return list(series.values())


class EngineSampler:
    """Samples the engines about once a second until `stop`."""

    def __init__(self, target: Target) -> None:
        """Start sampling."""
        self._target = target
        self.samples: list[EngineSample] = []
        psutil.cpu_percent()  # the first call only starts the interval of the next
        self._greenlet = gevent.spawn(self._watch)

    def _watch(self) -> None:
        while True:
            gevent.sleep(INTERVAL_S)
            sample = read_sample(self._target)
            # Without an engine that was there before, the summed counters fall.
            if sample is not None and not (self.samples and self.samples[-1].engines.keys() - sample.engines.keys()):
                self.samples.append(sample)

    def stop(self) -> Sequence[EngineSample]:
        """Stop sampling and return the samples."""
        self._greenlet.kill()
        return self.samples


def summarize_samples(samples: Sequence[EngineSample]) -> dict[str, Any]:
    """Return the figures of a stage from its samples; {} for fewer than two."""
    if len(samples) < 2:
        return {}
    first, last = samples[0], samples[-1]
    seconds = last.at - first.at
    series = by_engine(samples)
    single = [sample for one in series for sample in one]
    queued = [own for own in single if own.waiting > 0]

    def grown(name: str) -> float:
        return float(getattr(last, name) - getattr(first, name))

    def mean(name: str) -> float:
        return float(sum(getattr(sample, name) for sample in samples) / len(samples))

    def per(total: str, count: str) -> float | None:
        return grown(total) / grown(count) if grown(count) > 0 else None

    return {
        "seconds": seconds,
        "samples": len(samples),
        "running_mean": mean("running"),
        "running_max": max(sample.running for sample in samples),
        "running_mean_of_one": sum(own.running for own in single) / len(single),
        "running_max_of_one": max(own.running for own in single),
        "waiting_mean": mean("waiting"),
        "waiting_capacity_mean": mean("waiting_capacity"),
        "waiting_deferred_mean": mean("waiting_deferred"),
        "queued_share": sum(sample.waiting > 0 for sample in samples) / len(samples),
        # Batch size and KV cache of engines in which requests wait.
        "running_while_queued": [own.running for own in queued],
        "kv_usage_while_queued": [own.kv_usage for own in queued],
        "kv_usage_mean": mean("kv_usage"),
        "kv_usage_max": max(sample.kv_usage for sample in samples),
        "preemptions": grown("preemptions"),
        "rejections": grown("rejections"),
        "requests": grown("first_tokens"),
        "prompt_tokens_per_s": grown("prompt_tokens") / seconds,
        "output_tokens_per_s": grown("output_tokens") / seconds,
        "steps_per_s": grown("steps") / seconds,
        "tokens_per_step": per("step_tokens", "steps"),
        "largest_step": _largest_step(first, last),
        "front_end_cpu": max((cpu for one in series if (cpu := _front_end_cpu(one)) is not None), default=None),
        "host_cpu": mean("host_cpu"),
        "queue_s": per("queue_s", "ended"),
        "prefill_s": per("prefill_s", "ended"),
        "decode_s": per("decode_s", "ended"),
        "ttft_s": per("ttft_s", "first_tokens"),
    }


def _largest_step(first: EngineSample, last: EngineSample) -> float | None:
    """Return the tokens up to which nearly all steps went, as the edge of a bucket; None if not known."""
    steps = {edge: count - first.steps_up_to.get(edge, 0.0) for edge, count in sorted(last.steps_up_to.items())}
    if not steps or max(steps.values()) <= 0:
        return None
    most = max(steps.values())
    finite = [edge for edge in steps if edge < math.inf]
    return next((edge for edge in finite if steps[edge] >= _NEARLY_ALL_STEPS * most), max(finite, default=None))


def _front_end_cpu(one: Sequence[EngineSample]) -> float | None:
    """Return the share of a core that one engine's API server used; None if its several processes do not report it."""
    seconds = one[-1].at - one[0].at
    if not seconds or not one[-1].front_end_cpu_s:
        return None
    return (one[-1].front_end_cpu_s - one[0].front_end_cpu_s) / seconds
