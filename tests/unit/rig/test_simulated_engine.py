"""The simulated engine over HTTP: its metrics must agree with what clients measure."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from loadtest.results.server_counters import parse_counters
from tests.rig.fault_engine.process import running_engine

ENGINE = "tests.rig.simulated_engine"


def post(url: str, text: str, tokens: int, *, stream: bool = False) -> Any:
    body = {
        "model": "engine",
        "messages": [{"role": "user", "content": text}],
        "max_completion_tokens": tokens,
        "stream": stream,
        "stream_options": {"include_usage": True},
    }
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode() if stream else json.load(answer)


def page(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def figure(text: str, name: str) -> float:
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))
    )


def test_stream_has_a_delta_per_token() -> None:
    with running_engine("--kind", "batch_slots", module=ENGINE) as url:
        events = [line[6:] for line in post(url, "hello", 5, stream=True).splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert sum(bool(c["choices"]) and bool(c["choices"][0]["delta"].get("content")) for c in chunks) == 5
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == 5


def test_counters_agree_with_clients() -> None:
    with running_engine("--kind", "kv_cache", module=ENGINE) as url, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda number: post(url, f"{number} " * 150, 20), range(24)))
        text = page(url)
    counters = parse_counters(text)
    assert counters is not None
    assert counters.generation_tokens == sum(answer["usage"]["completion_tokens"] for answer in answers)
    assert counters.prompt_tokens == sum(answer["usage"]["prompt_tokens"] for answer in answers)
    assert counters.ended["length"] == 24
    assert counters.busy == 0
    assert figure(text, "vllm:iteration_tokens_total_count") > 0
    assert figure(text, "vllm:request_queue_time_seconds_count") == 24
    assert figure(text, "process_start_time_seconds") > 0


def test_repeated_prompt_hits_the_prefix_cache() -> None:
    with running_engine("--kind", "batch_slots", module=ENGINE) as url:
        post(url, "the same words", 2)
        again = post(url, "the same words", 2)
        text = page(url)
    cached = again["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached == again["usage"]["prompt_tokens"] == figure(text, "vllm:prefix_cache_hits_total")


def test_full_queue_answers_503_and_counts() -> None:
    arguments = ("--kind", "batch_slots", "--max-num-queued-reqs", "1")

    def status(number: int) -> int:
        try:
            post(url, str(number), 20)
        except urllib.error.HTTPError as error:
            return error.code
        return 200

    with running_engine(*arguments, module=ENGINE) as url, ThreadPoolExecutor(40) as pool:
        found = list(pool.map(status, range(40)))
        text = page(url)
    assert set(found) == {200, 503}
    assert figure(text, "vllm:admission_rejections_total") == found.count(503)


def test_oversized_request_is_refused() -> None:
    with running_engine("--kind", "kv_cache", module=ENGINE) as url, pytest.raises(urllib.error.HTTPError) as refused:
        post(url, "word " * 5000, 10)
    assert refused.value.code == 400
