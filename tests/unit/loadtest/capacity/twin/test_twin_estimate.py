"""Estimate by an engine's twin: its batches and its interval."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

from loadtest.capacity.answer import SearchSettings, SloLimits
from loadtest.capacity.simulation.engine_spec import EngineSpec
from loadtest.capacity.twin import twin_estimate
from loadtest.capacity.twin.twin_estimate import _Matching, estimate_by_twin
from loadtest.capacity.twin.twin_fit import replay
from tests.rig.capacity_objects import record, request
from tests.rig.simulated_engine.engine_kinds import KINDS

if TYPE_CHECKING:
    import pytest

    from loadtest.capacity.stage import StageResult
    from loadtest.capacity.statistics.saturation_curve import CapacityEstimate

LIMITS = SloLimits(ttft_s=0.5)


def stage(e2e_s: float) -> StageResult:
    """Return a stage of 100 requests in 10 s, each of which takes `e2e_s`."""
    return record(requests=tuple(request(place / 10, e2e_s=e2e_s) for place in range(100))).result


def test_no_batch_from_cut_off_stage() -> None:
    matching = _Matching(EngineSpec(), LIMITS, [stage(0.5), stage(60.0)])
    matching.excess(0.0)
    batches = [count for _, count, _, _ in matching.batches(0.0)]
    assert sum(batches) == matching.requests
    assert min(batches) > 0


def test_unsettled_requests_in_no_batch() -> None:
    matching = _Matching(EngineSpec(), LIMITS, [stage(2.0)])
    assert matching.requests == 80


KIND = KINDS["batch_slots"]  # 15.5 requests/s
RATES = (15.0, 15.5, 16.0, 15.2, 15.7, 15.4, 15.9, 15.1, 15.6)


def misses(stage: StageResult) -> list[bool]:
    return [not KIND.limits.met(one) for one in replay(KIND.engine, stage.requests)]


def arrivals(rate: float, seed: int) -> StageResult:
    simulated = islice(KIND.arrivals(rate, seed), 400)
    requests = tuple(
        request(one.arrived, prompt_tokens=one.prompt_tokens, output_tokens=one.output_tokens) for one in simulated
    )
    return record(rate, requests).result


def measured(shared_noise: float) -> list[StageResult]:
    """Return stages of an engine with its twin's noise in this share of its batches, and its own in the others."""
    random = Random(3)  # noqa: S311  # repeatable
    stages = []
    for number, rate in enumerate(RATES):
        stage = arrivals(rate, number)
        twins, others = misses(stage), misses(arrivals(rate, 100 + number))
        chosen = [twins if random.random() < shared_noise else others for _ in range(8)]
        missed = [chosen[place // 50][place] for place in range(400)]
        requests = [replace(one, good=not miss) for one, miss in zip(stage.requests, missed, strict=True)]
        stages.append(replace(stage, requests=tuple(requests)))
    return stages


def capacity(stages: list[StageResult]) -> CapacityEstimate:
    settings = SearchSettings(limits=KIND.limits)
    found = estimate_by_twin(KIND.engine, stages, settings, KIND.lengths()[:2000], 15.5, 20_000)
    assert found is not None
    return found[0]


def test_partial_fit_widens_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    alike, in_part = measured(1.0), measured(0.75)
    wide = capacity(in_part).width
    with monkeypatch.context() as patch:
        patch.setattr(twin_estimate, "_PARTIAL_FIT_ERROR", 0.0)
        without = capacity(in_part).width
        of_alike = capacity(alike).width
    assert wide > 1.1 * without
    # A twin equal to its engine is not affected.
    assert capacity(alike).width < 1.02 * of_alike
