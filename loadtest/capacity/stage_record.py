"""Records of stages and closed loops, and their figures for the report."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from loadtest.capacity.stage import mean_output_tokens
from loadtest.results.failure_texts import FailureTexts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.capacity.engine_sample import EngineSample
    from loadtest.capacity.stage import StageRequest, StageResult
    from loadtest.sending.pacing import LoadSpec
    from loadtest.settings.run_options import Slo

Item = TypeVar("Item")

PERCENTILES = (50, 90, 95, 99)
# Fewest values at or above a percentile for it to be reported.
_FEWEST_BEYOND = 3
# Most requests of a stage in the HTML report.
_MOST_SHOWN = 600


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A stage that has ended."""

    result: StageResult
    load: LoadSpec
    started: float  # Unix time
    evidence: Mapping[str, Any]  # of `engine_series.summarize_samples`, over the measured window
    samples: Sequence[EngineSample]
    began: float  # monotonic, like the samples' times
    client: Mapping[str, Any]  # of `validity.client_figures`
    processes: int
    failures: FailureTexts = field(default_factory=FailureTexts)  # of the measured requests
    others_cpu: float | None = None  # share of this host's cores that others used right before the stage

    @property
    def window_s(self) -> float:
        """Seconds of the schedule that the measured requests cover."""
        requests = self.result.requests
        return requests[-1].due_s - self.result.plan.warmup_s if requests else 0.0

    @property
    def missed_share(self) -> float:
        """Share of the measured requests that missed; 0 without any."""
        requests = self.result.requests
        return sum(not request.good for request in requests) / len(requests) if requests else 0.0


@dataclass(frozen=True, slots=True)
class UsersRecord:
    """A closed loop at the capacity: each of `users` sends its next request when its last has ended."""

    users: int
    requests: int
    good: int
    share_low: float
    share_high: float
    met: bool | None  # None: undecided
    requests_per_s: float | None
    output_tokens_per_s: float | None
    void: tuple[str, ...]
    duration_s: float
    paused_share: float = 0.0  # of the users' time, after failures


@dataclass(frozen=True, slots=True)
class Misses:
    """Reasons for misses; a request that missed two limits counts in both."""

    requests: int = 0
    missed: int = 0
    ttft: int = 0
    tpot: int = 0
    e2e: int = 0
    rejected: int = 0
    failed: int = 0  # neither ok nor rejected


def count_misses(requests: Sequence[StageRequest], slo: Slo) -> Misses:
    """Count the misses of `requests` by limit."""
    bad = [request for request in requests if not request.good]

    def above(name: str, limit: float | None) -> int:
        if limit is None:
            return 0
        return sum((value := getattr(request, name)) is not None and value > limit for request in bad)

    return Misses(
        requests=len(requests),
        missed=len(bad),
        ttft=above("ttft_s", slo.ttft),
        tpot=above("tpot_s", slo.tpot),
        e2e=above("e2e_s", slo.e2e),
        rejected=sum(request.rejected for request in bad),
        failed=sum(request.failed and not request.rejected for request in bad),
    )


def percentiles_ms(values: Sequence[float]) -> dict[str, float | int | None]:
    """Return count, mean and percentiles (exact, nearest rank) in milliseconds of `values` in seconds."""
    ordered = sorted(values)
    figures: dict[str, float | int | None] = {"count": len(ordered)}
    figures["mean"] = sum(ordered) / len(ordered) * 1000 if ordered else None
    for percent in PERCENTILES:
        rank = math.ceil(len(ordered) * percent / 100)
        enough = ordered and (percent == 50 or len(ordered) - rank + 1 >= _FEWEST_BEYOND)
        figures[f"p{percent}"] = ordered[rank - 1] * 1000 if enough else None
    return figures


def curve_point(record: StageRecord, slo: Slo) -> dict[str, Any]:
    """Return the figures of a stage as in `capacity.json`. Latencies are of requests that ended ok."""
    requests, seconds = record.result.requests, record.window_s
    ended = [request for request in requests if request.e2e_s is not None]
    good = sum(request.good for request in requests)
    misses = count_misses(requests, slo)

    def per_second(amount: float) -> float | None:
        return amount / seconds if seconds > 0 else None

    def mean(values: Sequence[float]) -> float | None:
        return sum(values) / len(values) if values else None

    def times(name: str) -> list[float]:
        return [value for request in ended if (value := getattr(request, name)) is not None]

    in_system = mean(times("e2e_s"))
    arrived = per_second(len(requests))
    output = mean_output_tokens(ended)
    return {
        "requests": len(requests),
        "good": good,
        "window_s": seconds,
        "arrived_requests_per_s": arrived,
        "goodput_requests_per_s": per_second(good),
        "output_tokens_per_s": None if output is None else per_second(output * len(ended)),
        "prompt_tokens_mean": mean([float(request.prompt_tokens) for request in ended]),
        "output_tokens_mean": output,
        # Little's law (1961): requests in the system = arrival rate * mean time in the system.
        "in_system_mean": arrived * in_system if arrived is not None and in_system is not None else None,
        "ttft_ms": percentiles_ms(times("ttft_s")),
        "tpot_ms": percentiles_ms(times("tpot_s")),
        "e2e_ms": percentiles_ms(times("e2e_s")),
        "misses": {
            "missed": misses.missed,
            "ttft": misses.ttft,
            "tpot": misses.tpot,
            "e2e": misses.e2e,
            "rejected": misses.rejected,
            "failed": misses.failed,
        },
    }


def thinned(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most `most` of the items, evenly spaced."""
    return list(items[:: -(-len(items) // most)]) if items else []


def latencies(records: Sequence[StageRecord]) -> dict[int, list[tuple[float | None, float | None]]]:
    """Return (TTFT, TPOT) in ms by stage number, evenly thinned; (None, None) for requests that did not end ok."""

    def times(request: StageRequest) -> tuple[float | None, float | None]:
        ended = request.e2e_s is not None and request.ttft_s is not None
        ttft = round(request.ttft_s * 1000, 1) if ended and request.ttft_s is not None else None
        tpot = round(request.tpot_s * 1000, 2) if ended and request.tpot_s is not None else None
        return ttft, tpot

    return {
        record.result.plan.number: [times(request) for request in thinned(record.result.requests, _MOST_SHOWN)]
        for record in records
    }
