"""An engine's twin: the simulated engine that, given the same arrivals, answers most as the measured one did."""

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

_NO_SLOTS = 512
_NO_BLOCKS = 10_000_000
# A logarithm of a latency's ratio beyond this is as wrong as it gets: a queue that grew in one and not in the other.
_WORST = 1.5
# Requests of each stage that the fit looks at: from the start, since it starts on an empty engine.
_MOST_REQUESTS = 250
# Simulations of all data: for each limit that may be there, then for the likeliest, and when there is more data.
_TRY, _FIT, _REFINE = 20, 50, 30
_FIRST_STEP = 0.3  # of the simplex, in the logarithm of each cost


def replay(spec: EngineSpec, requests: Iterable[StageRequest], seed: int = 0) -> list[SimulatedRequest]:
    """Send the arrivals of `requests` through an engine that is empty at first; returns what became of each."""
    sequences = [
        SimulatedRequest(request.due_s, max(1, request.prompt_tokens), max(1, request.output_tokens))
        for request in requests
    ]
    for _ in run(SimulatedEngine(spec, seed), sequences):
        pass
    return sequences


def measured_lengths(stages: Iterable[StageResult]) -> list[tuple[int, int]]:
    """(prompt tokens, output tokens) of the requests that were measured."""
    return [(max(1, one.prompt_tokens), max(1, one.output_tokens)) for stage in stages for one in stage.requests]


def longest_request(stages: Iterable[StageResult]) -> int:
    """Tokens of the longest request that was sent, its output included; 0 when none was."""
    sent = (one for stage in stages for one in (*stage.warmup, *stage.requests))
    return max((max(1, one.prompt_tokens) + max(1, one.output_tokens) for one in sent), default=0)


def fit_twin(stages: Items[StageResult], start: Twin | None = None) -> Twin | None:
    """Fit an engine to what was measured in `stages`; None when there is nothing to fit to.

    With `start`, a twin of earlier stages, its limits are kept and its costs refined.
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
    """Fit the costs by Nelder and Mead's simplex search (1965), from those of `spec`, with so many simulations."""
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
                total += _WORST * (request.rejected != twin.rejected)
                count += 1
                continue
            if request.ttft_s is not None:
                total += min(_WORST, abs(math.log((request.ttft_s + floor) / (twin.ttft + floor))))
                count += 1
            tpot = twin.tpot
            if request.tpot_s and tpot:
                total += min(_WORST, abs(math.log(request.tpot_s / tpot)))
                count += 1
    return total / max(1, count)


def _starts(data: Items[Items[StageRequest]]) -> list[EngineSpec]:
    """Engines to start from: one for each limit that the data may have run into."""
    costs = _first_costs(data)
    queue = _queue_limit(data)
    slots = max(2, *(_peak(requests, lambda _request, _share: 1.0) for requests in data))
    tokens = max(
        _peak(requests, lambda request, share: request.prompt_tokens + share * request.output_tokens)
        for requests in data
    )
    longest = max(request.prompt_tokens + request.output_tokens for requests in data for request in requests)
    free = _with_costs(
        EngineSpec(max_num_seqs=_NO_SLOTS, kv_blocks=_NO_BLOCKS, noise=0.0, max_num_queued_reqs=queue),
        [math.log(max(cost, 1e-9)) for cost in costs],
    )
    return [
        free,
        replace(free, max_num_seqs=min(_NO_SLOTS, round(slots))),
        replace(free, kv_blocks=free.blocks(round(max(tokens, longest)))),
    ]


def _first_costs(data: Items[Items[StageRequest]]) -> list[float]:
    """A rough start: the step from the time per token against how many ran, the rest from the time to first token."""
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
    centre_x, centre_y = mean(x for x, _ in points), mean(y for _, y in points)
    spread = sum((x - centre_x) ** 2 for x, _ in points)
    slope = sum((x - centre_x) * (y - centre_y) for x, y in points) / spread if spread else 0.0
    fastest = min(y for _, y in points)
    slope = min(max(slope, centre_y / 1000), (centre_y - fastest / 2) / centre_x)
    step = max(centre_y - slope * centre_x, fastest / 2)
    left = max(alone - step, alone / 10)
    return [step, slope, left / 2 / prompt, left / 4, slope / 20]


def _queue_limit(data: Items[Items[StageRequest]]) -> int | None:
    """How many waited for their first token when requests were rejected, if any were."""
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
    """The most that ran at a time, by weight; sampled when a request gets its first token.

    `weigh` gets a request and the share of its output that it has made by then.
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
