"""Build stages, records and results of searches for tests."""

from __future__ import annotations

from typing import Any

from loadtest.capacity.stage import StagePlan, StageRequest, StageResult
from loadtest.capacity.stage_record import StageRecord
from loadtest.sending.pacing import LoadSpec
from loadtest.settings.run_options import Pacing

CLIENT_OK = {
    "requests": 100,
    "late": 0,
    "late_limit_ms": 25.0,
    "latest_ms": 1.0,
    "read_lag_p99_ms": 0.1,
    "merged_deltas_ratio": 0.0,
    "busiest_process_cpu": 0.1,
}


def request(due_s: float = 0.0, *, good: bool = True, **fields: Any) -> StageRequest:
    made: dict[str, Any] = {"ttft_s": 0.1, "tpot_s": 0.02, "e2e_s": 0.5, "prompt_tokens": 64, "output_tokens": 21}
    return StageRequest(due_s, good, **(made | fields))


def record(
    rate: float = 10.0,
    requests: tuple[StageRequest, ...] | None = None,
    *,
    number: int = 0,
    missed: int = 0,
    evidence: dict[str, Any] | None = None,
    void: tuple[str, ...] = (),
    client_limited: bool = False,
    bad: dict[str, Any] | None = None,
) -> StageRecord:
    """Return a stage of 100 requests, the first `missed` of which are `bad`."""
    if requests is None:
        requests = tuple(
            request(place / rate, good=place >= missed, **((bad or {"ttft_s": 0.9}) if place < missed else {}))
            for place in range(100)
        )
    plan = StagePlan(number, rate, "edge", 0.0, 100, 100)
    load = LoadSpec(number, Pacing("poisson", rate, 1.0, 1.0, None, 0), 7, 0)
    result = StageResult(plan, requests, 10.0, void=void, client_limited=client_limited)
    return StageRecord(result, load, 1000.0 + number, evidence or {}, [], 0.0, CLIENT_OK, 1)


def result(low: float | None, mid: float | None, high: float | None, **run: Any) -> dict[str, Any]:
    """Return the part of a `capacity.json` that the gate reads."""
    bound = "never_met" if low is None else "floor" if high is None else "edge"
    return {
        "capacity": {"requests_per_second": {"low": low, "mid": mid, "high": high}, "bound": bound},
        "verdict": {"valid": True, "reasons": [], "limit": None},
        "run": {"workload": {"prompt_tokens": "64"}, "slo": {"ttft_ms": 500.0}, "seed": 1, **run},
    }
