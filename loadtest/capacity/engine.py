"""The engine's own series while a stage runs: what it waits for, and where its time goes."""

from __future__ import annotations

import dataclasses
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gevent
import psutil
import requests

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.client.target import Target

INTERVAL_S = 1.0
_TIMEOUT_S = 5.0
_LINE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_REASON = re.compile(r'reason="(\w+)"')


@dataclass(frozen=True, slots=True)
class EngineSample:
    """vLLM's series at one moment, added up over its engines; times in seconds, counters since the server started."""

    at: float  # monotonic
    host_cpu: float  # share of all cores of the load generator's box that were busy since the last sample
    running: float = 0.0  # requests in the batch
    waiting: float = 0.0
    waiting_capacity: float = 0.0  # ... for a place in the batch, for blocks or for a share of the step
    waiting_deferred: float = 0.0  # ... for something else
    kv_usage: float = 0.0  # share of the KV cache's blocks, of the fullest engine
    preemptions: float = 0.0
    rejections: float = 0.0
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0
    steps: float = 0.0
    step_tokens: float = 0.0
    front_end_cpu_s: float = 0.0  # of the API server's process
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    ttft_s: float = 0.0
    first_tokens: float = 0.0  # requests of which queue_s, prefill_s and ttft_s are the sums
    ended: float = 0.0  # requests of which decode_s is the sum


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
_BY_REASON = "vllm:num_requests_waiting_by_reason"
_KV = "vllm:kv_cache_usage_perc"
_CACHE_CONFIG = "vllm:cache_config_info"


def parse_sample(page: str, at: float, host_cpu: float) -> EngineSample | None:
    """Read a metrics page; None when it is not vLLM's. A full parser would cost the load generator ten times more."""
    values: dict[str, float] = {}
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
        elif name == _KV:
            values["kv_usage"] = max(values.get("kv_usage", 0.0), float(line.rsplit(" ", 1)[1]))
    if "running" not in values:
        return None
    known = {field.name for field in dataclasses.fields(EngineSample)}
    return EngineSample(at=at, host_cpu=host_cpu, **{name: value for name, value in values.items() if name in known})


def read_cache_config(target: Target) -> dict[str, str]:
    """Return the labels of `vllm:cache_config_info`, which are the engine's cache settings; empty without them."""
    for line in _page(target).splitlines():
        if line.startswith(_CACHE_CONFIG) and (found := _LINE.match(line)):
            return {name: value for name, value in _LABEL.findall(found["labels"] or "") if value != "None"}
    return {}


def theoretical_concurrency(cache_config: Mapping[str, str], tokens: float) -> float | None:
    """Requests of `tokens` tokens each whose KV cache fits into the blocks: blocks * block size / tokens."""
    try:
        return int(cache_config["num_gpu_blocks"]) * int(cache_config["block_size"]) / tokens
    except (KeyError, ValueError, ZeroDivisionError):
        return None


def read_version(target: Target) -> str | None:
    """Return the version that vLLM's /version tells, None where there is none."""
    try:
        answer = requests.get(target.url("/version"), headers=_headers(target), timeout=_TIMEOUT_S)
        return str(answer.json()["version"]) if answer.ok else None
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return None


def _headers(target: Target) -> dict[str, str]:
    return {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}


def _page(target: Target) -> str:
    try:
        answer = requests.get(target.url("/metrics"), timeout=_TIMEOUT_S)
    except requests.RequestException:
        return ""
    return answer.text if answer.ok else ""


class EngineWatch:
    """Samples the engine about once a second, from its start to `stop`."""

    def __init__(self, target: Target) -> None:
        """Start."""
        self._target = target
        self.samples: list[EngineSample] = []
        psutil.cpu_percent()  # the first call only sets the start of the next one's interval
        self._greenlet = gevent.spawn(self._watch)

    def _watch(self) -> None:
        while True:
            gevent.sleep(INTERVAL_S)
            page = _page(self._target)
            sample = parse_sample(page, time.monotonic(), psutil.cpu_percent() / 100)
            if sample is not None:
                self.samples.append(sample)

    def stop(self) -> Sequence[EngineSample]:
        """Stop, and return what was sampled."""
        self._greenlet.kill()
        return self.samples


def spans(samples: Sequence[EngineSample]) -> dict[str, Any]:
    """Return what the samples of a stage say together; {} for fewer than two."""
    if len(samples) < 2:
        return {}
    first, last = samples[0], samples[-1]
    seconds = last.at - first.at

    def grown(name: str) -> float:
        return float(getattr(last, name) - getattr(first, name))

    def mean(name: str) -> float:
        return float(sum(getattr(sample, name) for sample in samples) / len(samples))

    def each(total: str, count: str) -> float | None:
        return grown(total) / grown(count) if grown(count) > 0 else None

    return {
        "seconds": seconds,
        "samples": len(samples),
        "running_mean": mean("running"),
        "running_max": max(sample.running for sample in samples),
        "waiting_mean": mean("waiting"),
        "waiting_capacity_mean": mean("waiting_capacity"),
        "waiting_deferred_mean": mean("waiting_deferred"),
        "queued_share": sum(sample.waiting > 0 for sample in samples) / len(samples),
        # While some wait: does the batch stay at one size, and is the KV cache full?
        "running_while_queued": [sample.running for sample in samples if sample.waiting > 0],
        "kv_usage_while_queued": [sample.kv_usage for sample in samples if sample.waiting > 0],
        "kv_usage_mean": mean("kv_usage"),
        "kv_usage_max": max(sample.kv_usage for sample in samples),
        "preemptions": grown("preemptions"),
        "rejections": grown("rejections"),
        "requests": grown("first_tokens"),
        "prompt_tokens_per_s": grown("prompt_tokens") / seconds,
        "output_tokens_per_s": grown("output_tokens") / seconds,
        "steps_per_s": grown("steps") / seconds,
        "tokens_per_step": each("step_tokens", "steps"),
        "front_end_cpu": grown("front_end_cpu_s") / seconds,
        "host_cpu": mean("host_cpu"),
        "queue_s": each("queue_s", "ended"),
        "prefill_s": each("prefill_s", "ended"),
        "decode_s": each("decode_s", "ended"),
        "ttft_s": each("ttft_s", "first_tokens"),
    }
