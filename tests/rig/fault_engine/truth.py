"""True timing of the engine: the time of every token sent, and its counters under vLLM's names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

_LABELS = {"model_name": "engine", "engine": "0"}


@dataclass(slots=True)
class Answer:
    """One request: its arrival, and the time at which each token went to the kernel, in Unix nanoseconds."""

    arrived_ns: int
    sent_ns: list[int] = field(default_factory=list)
    late_ns: int = 0  # largest delay of a token after its due time


def percentile(values: list[float], percent: float) -> float:
    """Return the nearest-rank percentile of sorted `values`."""
    return values[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def describe(values: list[float]) -> dict[str, float]:
    """Return count, percentiles, mean and maximum of seconds, in milliseconds."""
    values = sorted(values)
    if not values:
        return {"count": 0}
    figures = {f"p{p}": percentile(values, p) * 1e3 for p in (50, 95, 99)}
    return {"count": len(values), "mean": sum(values) / len(values) * 1e3, **figures, "max": values[-1] * 1e3}


class Truth:
    """Times since the last reset, and counters."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.registry = CollectorRegistry()
        labels = list(_LABELS)

        def counter(name: str, *more: str) -> Counter:
            return Counter(f"vllm:{name}", "as vLLM counts it", [*labels, *more], registry=self.registry)

        self.prompt = counter("prompt_tokens").labels(**_LABELS)
        self.generation = counter("generation_tokens").labels(**_LABELS)
        self.queries = counter("prefix_cache_queries").labels(**_LABELS)
        self.hits = counter("prefix_cache_hits").labels(**_LABELS)
        self._success = counter("request_success", "finished_reason")
        running = Gauge("vllm:num_requests_running", "as vLLM counts it", labels, registry=self.registry)
        self.running = running.labels(**_LABELS)
        self._prompts: set[int] = set()

    def began(self, arrived_ns: int, prompt: bytes, prompt_tokens: int) -> Answer:
        """Record an arrival; a repeated prompt hits the prefix cache."""
        answer = Answer(arrived_ns)
        self.answers.append(answer)
        self.running.inc()
        self.prompt.inc(prompt_tokens)
        self.queries.inc(prompt_tokens)
        key = hash(prompt)
        if key in self._prompts:
            self.hits.inc(prompt_tokens)
        self._prompts.add(key)
        return answer

    def ended(self, reason: str) -> None:
        """Record the end of a request."""
        self.running.dec()
        self._success.labels(**_LABELS, finished_reason=reason).inc()

    def page(self) -> bytes:
        """Return the metrics page."""
        return generate_latest(self.registry)

    def reset(self) -> None:
        """Clear the times; counters continue, as a server's do."""
        self.answers = []

    def summary(self) -> dict[str, object]:
        """Return the engine's own times: arrival to first token, and between tokens."""
        ttft = [(a.sent_ns[0] - a.arrived_ns) * 1e-9 for a in self.answers if a.sent_ns]
        gaps = [
            (later - earlier) * 1e-9
            for answer in self.answers
            for earlier, later in zip(answer.sent_ns, answer.sent_ns[1:], strict=False)
        ]
        return {
            "requests": len(self.answers),
            "tokens": sum(len(answer.sent_ns) for answer in self.answers),
            "ttft_ms": describe(ttft),
            "gap_ms": describe(gaps),
            "late_ms": describe([answer.late_ns * 1e-9 for answer in self.answers]),
            "window": [
                min((answer.arrived_ns for answer in self.answers), default=0) * 1e-9,
                max((answer.sent_ns[-1] for answer in self.answers if answer.sent_ns), default=0) * 1e-9,
            ],
            "times": [[answer.arrived_ns, *answer.sent_ns] for answer in self.answers[:64]],
        }
