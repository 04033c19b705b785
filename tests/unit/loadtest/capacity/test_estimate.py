"""The estimate of the edge: what it takes the workload to be."""

from __future__ import annotations

from loadtest.capacity.answer import SearchSettings
from loadtest.capacity.estimate import Estimator
from loadtest.capacity.search import Search
from loadtest.capacity.simulation.kinds import KINDS
from loadtest.capacity.simulation.search import run_stage
from loadtest.capacity.stage import StagePlan


def test_the_long_run_has_the_workload_s_lengths_and_not_those_that_happened_to_be_sent() -> None:
    """A tenth longer prompts than were measured, in an engine that prompts keep busy."""
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
