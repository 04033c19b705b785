"""Client of this container's API server: health, metrics, and a request for one token."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field

SERVER = "http://127.0.0.1:8000"
# For requests inside the stack: without the environment's proxies, which know no name of it.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# Metrics that only the engine changes, with each step. The number of steps is not enough: a long prompt takes several
# steps and counts as one, but fills the KV cache meanwhile.
STEPS = "vllm:iteration_tokens_total_count"
HELD = ("vllm:num_requests_running", "vllm:num_requests_waiting")
_ENGINE_METRICS = (STEPS, *HELD, "vllm:kv_cache_usage_perc", "vllm:num_preemptions_total", "vllm:prompt_tokens_total")
_SAMPLE = re.compile(r"^(?P<name>[\w:]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
_ENGINE_LABEL = re.compile(r'\bengine="([^"]*)"')


@dataclass
class EngineCounters:
    """One engine's metrics: name to value."""

    values: dict[str, float] = field(default_factory=dict)

    @property
    def held(self) -> float:
        """Requests that run or wait in the engine."""
        return sum(self.values.get(name, 0.0) for name in HELD)


@dataclass
class EngineMetrics:
    """A parsed metrics page: engines by number, and the gauges of docker/vllm/gate."""

    engines: dict[str, EngineCounters]
    in_flight: float = 0.0
    unanswered: float = 0.0
    unscraped: float = 0.0


def parse_metrics(page: str) -> EngineMetrics:
    """Parse a page in Prometheus' text format; a missing metric counts as 0."""
    metrics = EngineMetrics({})
    for sample in _SAMPLE.finditer(page):
        name, value = sample["name"], float(sample["value"])
        if name in _ENGINE_METRICS:
            label = _ENGINE_LABEL.search(sample["labels"] or "")
            engine = metrics.engines.setdefault(label[1] if label else "0", EngineCounters())
            engine.values[name] = engine.values.get(name, 0.0) + value
        elif name.startswith("headroom_engine_requests_"):
            setattr(metrics, name.removeprefix("headroom_engine_requests_"), value)
    return metrics


def request(path: str, body: dict[str, object] | None = None, *, timeout_s: float) -> str:
    """GET, or POST `body` as JSON. Raises OSError unless the answer is a success."""
    headers = {"Content-Type": "application/json", "User-Agent": "headroom"}
    if key := os.environ.get("VLLM_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    data = json.dumps(body).encode() if body else None
    call = urllib.request.Request(SERVER + path, data=data, headers=headers)  # noqa: S310  # fixed http address
    with DIRECT.open(call, timeout=timeout_s) as answer:
        content: bytes = answer.read()
    return content.decode()


def ask_for_a_token(model: str, *, timeout_s: float) -> None:
    """Request the least work of the model's kind: one token, or of a pooling model one vector or score.

    Raises OSError when none comes; HTTPError when the server refuses.
    """
    one_token: dict[str, object] = {"model": model, "max_tokens": 1}
    questions: tuple[tuple[str, dict[str, object]], ...] = (
        ("/v1/chat/completions", {**one_token, "messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/completions", {**one_token, "prompt": "Hi"}),
        # vLLM serves it for every model that embeds, ranks or classifies, and for no other.
        ("/pooling", {"model": model, "input": "Hi"}),
    )
    for path, body in questions:
        try:
            request(path, body, timeout_s=timeout_s)
        except urllib.error.HTTPError as error:
            # 400: a base model has no chat template, only completions. 404: the model is of another kind.
            if error.code not in {400, 404}:
                raise
            code, headers = error.code, error.headers
        else:
            return
    what = (
        "no chat, no completion and no pooling request is answered; docs/models.md lists the kinds of models to serve"
    )
    raise urllib.error.HTTPError(SERVER, code, what, headers, None)
