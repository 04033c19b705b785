"""Fit an engine's twin: the simulated engine whose latencies on the same arrivals are nearest to the measured ones."""

from __future__ import annotations

import bisect
import math
from dataclasses import replace
from statistics import mean, median
from typing import TYPE_CHECKING

from loadtest.capacity.answer import Twin
from loadtest.capacity.simulation.engine_spec import EngineSpec, SimulatedRequest
from loadtest.capacity.simulation.simulate import run
from loadtest.capacity.simulation.simulated_engine import SimulatedEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Sequence as Items

    from loadtest.capacity.stage import StageRequest, StageResult

_UNLIMITED_SLOTS = 512
_UNLIMITED_BLOCKS = 10_000_000
# Cap of a latency's log error: beyond it, a queue grew in one engine and not in the other.
_ERROR_CAP = 1.5
# First requests of each stage that are fitted: a stage starts on an empty engine, as a replay does.
_MOST_REQUESTS = 250
# Simulations of all data: for each candidate limit, for the best of them, and for an update with more data.
_TRY, _FIT, _REFINE = 20, 50, 30
_FIRST_STEP = 0.3  # of the simplex, in the logarithm of each cost


def replay(spec: EngineSpec, requests: Iterable[StageRequest], seed: int = 0) -> list[SimulatedRequest]:
    """Replay the arrivals of `requests` on an engine that starts empty; return the simulated requests in order."""
    simulated = [
        SimulatedRequest(request.due_s, max(1, request.prompt_tokens), max(1, request.output_tokens))
        for request in requests
    ]
    for _ in run(SimulatedEngine(spec, seed), simulated):
        pass
    return simulated


def measured_lengths(stages: Iterable[StageResult]) -> list[tuple[int, int]]:
    """Return (prompt tokens, output tokens) of the measured requests."""
    return [(max(1, one.prompt_tokens), max(1, one.output_tokens)) for stage in stages for one in stage.requests]


def longest_request(stages: Iterable[StageResult]) -> int:
    """Return the tokens of the longest request that was sent, with its output; 0 without any."""
    sent = (one for stage in stages for one in (*stage.warmup, *stage.requests))
    return max((max(1, one.prompt_tokens) + max(1, one.output_tokens) for one in sent), default=0)


def fit_twin(stages: Items[StageResult], start: Twin | None = None) -> Twin | None:
    """Fit an engine to the latencies measured in `stages`; None if there are none.

    With `start`, a twin of earlier stages, only its costs are fitted.
    """
    data = [[*stage.warmup, *stage.requests][:_MOST_REQUESTS] for stage in stages]
    data = [requests for requests in data if requests]
    measured = [request for requests in data for request in requests if request.ttft_s is not None]
    if not measured:
        return None
    floor = median(request.ttft_s or 0.0 for request in measured) * 0.1
    if start is not None:
        return _refine(start.spec, data, floor, evaluations=_REFINE)
    candidates = [_refine(spec, data, floor, evaluations=_TRY) for spec in _starts(data)]
    best = min(candidates, key=lambda twin: twin.error)
    return _refine(best.spec, data, floor, evaluations=_FIT)


def _costs(spec: EngineSpec) -> tuple[float, ...]:
    return spec.step_s, spec.sequence_s, spec.prefill_token_s, spec.request_s, spec.output_token_s


def _with_costs(spec: EngineSpec, logs: Items[float]) -> EngineSpec:
    step, sequence, prefill_token, request, output_token = map(math.exp, logs)
    return replace(
        spec,
        step_s=step,
        sequence_s=sequence,
        prefill_token_s=prefill_token,
        request_s=request,
        output_token_s=output_token,
    )


def _refine(spec: EngineSpec, data: Items[Items[StageRequest]], floor: float, *, evaluations: int) -> Twin:
    """Fit the costs by Nelder and Mead's simplex search (1965), starting at those of `spec`."""
    from scipy.optimize import minimize  # type: ignore[import-untyped]  # noqa: PLC0415  # 50 MB, not for workers

    start = [math.log(max(cost, 1e-9)) for cost in _costs(spec)]
    corners = [
        [cost + _FIRST_STEP * (place == moved) for place, cost in enumerate(start)] for moved in range(len(start))
    ]
    found = minimize(
        lambda logs: _error(_with_costs(spec, logs), data, floor),
        start,
        method="Nelder-Mead",
        options={"initial_simplex": [start, *corners], "maxfev": evaluations},
    )
    return Twin(_with_costs(spec, found.x), float(found.fun))


def _error(spec: EngineSpec, data: Items[Items[StageRequest]], floor: float) -> float:
    total, count = 0.0, 0
    for requests in data:
        for request, twin in zip(requests, replay(spec, requests), strict=True):
            if request.rejected or twin.rejected:
                total += _ERROR_CAP * (request.rejected != twin.rejected)
                count += 1
                continue
            if request.ttft_s is not None:
                total += min(_ERROR_CAP, abs(math.log((request.ttft_s + floor) / (twin.ttft + floor))))
                count += 1
            tpot = twin.tpot
            if request.tpot_s and tpot:
                total += min(_ERROR_CAP, abs(math.log(request.tpot_s / tpot)))
                count += 1
    return total / max(1, count)


def _starts(data: Items[Items[StageRequest]]) -> list[EngineSpec]:
    """Return the engines to start from: unlimited, with the most slots seen, and with the most KV blocks seen."""
    costs = _first_costs(data)
    queue = _queue_limit(data)
    slots = max(2, *(_peak(requests, lambda _request, _share: 1.0) for requests in data))
    tokens = max(
        _peak(requests, lambda request, share: request.prompt_tokens + share * request.output_tokens)
        for requests in data
    )
    longest = max(request.prompt_tokens + request.output_tokens for requests in data for request in requests)
    free = _with_costs(
        EngineSpec(max_num_seqs=_UNLIMITED_SLOTS, kv_blocks=_UNLIMITED_BLOCKS, noise=0.0, max_num_queued_reqs=queue),
        [math.log(max(cost, 1e-9)) for cost in costs],
    )
    return [
        free,
        replace(free, max_num_seqs=min(_UNLIMITED_SLOTS, round(slots))),
        replace(free, kv_blocks=free.blocks(round(max(tokens, longest)))),
    ]


def _first_costs(data: Items[Items[StageRequest]]) -> list[float]:
    """Guess the costs: step and sequence from a regression of TPOT on running requests, the rest from TTFT."""
    points: list[tuple[float, float]] = []
    for requests in data:
        bounds = [
            (request.due_s + request.ttft_s, request.due_s + request.e2e_s)
            for request in requests
            if request.ttft_s is not None and request.e2e_s is not None
        ]
        starts, ends = sorted(first for first, _ in bounds), sorted(last for _, last in bounds)
        for request in requests:
            if request.tpot_s and request.ttft_s is not None and request.e2e_s is not None:
                middle = request.due_s + (request.ttft_s + request.e2e_s) / 2
                running = bisect.bisect(starts, middle) - bisect.bisect(ends, middle)
                points.append((max(1, running), request.tpot_s))
    ttft = sorted(request.ttft_s for requests in data for request in requests if request.ttft_s is not None)
    alone = ttft[len(ttft) // 20]
    prompt = mean(request.prompt_tokens for requests in data for request in requests)
    if len(points) < 3:
        return [alone / 2, alone / 100, alone / 4 / prompt, alone / 10, alone / 1000]
    mean_x, mean_y = mean(x for x, _ in points), mean(y for _, y in points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    fastest = min(y for _, y in points)
    slope = min(max(slope, mean_y / 1000), (mean_y - fastest / 2) / mean_x)
    step = max(mean_y - slope * mean_x, fastest / 2)
    left = max(alone - step, alone / 10)
    return [step, slope, left / 2 / prompt, left / 4, slope / 20]


def _queue_limit(data: Items[Items[StageRequest]]) -> int | None:
    """Return the median number that waited for their first token when a request was rejected; None if none was."""
    found: list[int] = []
    for requests in data:
        waits = [(request.due_s, request.due_s + request.ttft_s) for request in requests if request.ttft_s is not None]
        dues, firsts = [due for due, _ in waits], sorted(first for _, first in waits)
        found += [
            bisect.bisect(dues, request.due_s) - bisect.bisect(firsts, request.due_s)
            for request in requests
            if request.rejected
        ]
    return max(1, round(median(found))) if found else None


def _peak(requests: Items[StageRequest], weigh: Callable[[StageRequest, float], float]) -> float:
    """Return the highest total weight of running requests, sampled at each first token.

    `weigh` takes a request and the share of its output that it has produced by then.
    """
    spans = [
        (request.due_s + request.ttft_s, request.due_s + request.e2e_s, request)
        for request in requests
        if request.ttft_s is not None and request.e2e_s is not None
    ]
    spans.sort(key=lambda span: span[0])
    peak = 0.0
    running: list[tuple[float, float, StageRequest]] = []
    for first, last, request in spans:
        running = [span for span in running if span[1] > first]
        running.append((first, last, request))
        total = sum(weigh(other, (first - began) / max(ends - began, 1e-9)) for began, ends, other in running)
        peak = max(peak, total)
    return peak
