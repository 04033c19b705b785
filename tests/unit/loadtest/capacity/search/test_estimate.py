"""Estimate of the capacity: the workload's lengths."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from loadtest.capacity.answer import SearchSettings, Twin
from loadtest.capacity.search import estimate
from loadtest.capacity.search.estimate import Estimator
from loadtest.capacity.search.search import Search
from loadtest.capacity.stage import StagePlan
from tests.rig.simulated_engine.engine_kinds import KINDS
from tests.rig.simulated_engine.simulated_search import run_stage

if TYPE_CHECKING:
    from loadtest.capacity.stage import StageResult


def test_long_run_uses_workload_lengths() -> None:
    """Prompts a tenth longer than measured, at an engine limited by prefill."""
    kind = KINDS["prefill_compute"]
    settings = SearchSettings(objective=kind.objective, limits=kind.limits)
    stages = [
        run_stage(kind, Search(settings), StagePlan(number, rate, "edge", 2.0, 250, 250), seed=3)
        for number, rate in enumerate((12.5, 13.5, 14.5))
    ]
    longer = [(prompt * 11 // 10, output) for prompt, output in kind.lengths()]
    guesses = []
    for lengths in (kind.lengths(), longer):
        estimator = Estimator(settings, lengths)
        estimator.learn(stages, 12.5, 14.5)
        assert estimator.guess is not None
        guesses.append(estimator.guess)
    assert 0.8 < guesses[1] / guesses[0] < 0.95


@pytest.mark.parametrize("where", ["requests", "warmup", "lengths"])
def test_twin_holds_the_longest_request(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    kind = KINDS["batch_slots"]
    settings = SearchSettings(limits=kind.limits)
    stages = [
        run_stage(kind, Search(settings), StagePlan(number, rate, "edge", 2.0, 250, 250), seed=3)
        for number, rate in enumerate((14.5, 15.5, 16.5))
    ]
    started: list[Twin | None] = []

    def fit(_stages: list[StageResult], start: Twin | None = None) -> Twin:
        """Return a twin as fitted to requests of 64 + 22 tokens: 6 blocks hold one."""
        started.append(start)
        return Twin(replace(kind.engine, kv_blocks=8 * 6), 0.1)

    monkeypatch.setattr(estimate, "fit_twin", fit)
    monkeypatch.setattr(estimate, "_FULL_FITS", 1)
    lengths = kind.lengths()[:2000]
    estimator = Estimator(settings, [*lengths, (1000, 22)] if where == "lengths" else lengths)
    estimator.learn(stages[:2], 14.5, 15.5)
    if where != "lengths":
        sent = getattr(stages[2], where)
        longer: dict[str, Any] = {where: (*sent[:-1], replace(sent[-1], prompt_tokens=1000))}
        stages[2] = replace(stages[2], **longer)
    estimator.learn(stages, 14.5, 16.5)
    assert estimator.twin is not None
    assert estimator.twin.spec.kv_blocks == 64
    assert started[0] is None
    assert started[1] is not None
    assert started[1].spec.kv_blocks == 64
