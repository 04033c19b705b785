"""A search inside Locust: its inputs, and the greenlets beside it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import gevent
import pytest
from gevent.monkey import get_original

from loadtest.capacity.execution import capacity_run
from loadtest.capacity.execution.capacity_run import CapacityRun
from loadtest.capacity.execution.stage_runner import NobodyToSendError, StageRunner
from loadtest.capacity.report.capacity_metrics import CapacityMetrics
from loadtest.capacity.stage import StagePlan
from loadtest.results.prometheus_metrics import LoadTestMetrics
from loadtest.sending.workers import Workers
from loadtest.single_run import RunContext
from tests.rig.loadtest_objects import options, plan

if TYPE_CHECKING:
    from loadtest.capacity.answer import Lengths, SearchSettings
    from loadtest.sending.pacing import LoadSpec

LENGTHS = [(64, 16), (80, 12)]


def make(*arguments: str) -> CapacityRun:
    workload = SimpleNamespace(lengths=lambda most: LENGTHS[:most], notes=())
    context = RunContext(
        workers=Workers(SimpleNamespace(clients=[]), pytest.fail),
        metrics=LoadTestMetrics(lambda: 0),
        options=options("--find-capacity", "--slo-ttft-ms", "500", *arguments),
        plan=plan(),
        workload=cast("Any", workload),
        folder=None,
    )
    return CapacityRun(context, CapacityMetrics(None))


def test_search_gets_workload_lengths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Prompts that are 1 % longer by chance change the capacity by 1.7 %.
    given: list[Lengths | None] = []

    class Search:
        def __init__(self, _settings: SearchSettings, lengths: Lengths | None = None) -> None:
            given.append(lengths)

    monkeypatch.setattr(capacity_run, "Search", Search)
    make()
    assert given == [LENGTHS]


def test_engines_behind_router_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity_run, "read_cache_config", lambda _target: {})
    monkeypatch.setattr(capacity_run, "read_version", lambda _target: None)
    search = make("--engine-urls", "http://127.0.0.1:1 http://127.0.0.1:2")
    search.start()
    search.stop()
    assert search.finding.engines == 2


def test_planning_does_not_block_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[bool] = []
    seen: list[bool] = []
    hold_thread = get_original("time", "sleep")

    def next_stage(_elapsed_s: float) -> None:
        for _ in range(100):
            hold_thread(0.02)
            if beats:
                break
        seen.extend(beats)

    monkeypatch.setattr(StageRunner, "await_processes", lambda *_: None)
    search = make()
    monkeypatch.setattr(search._search, "next_stage", next_stage)
    gevent.spawn(beats.append, True)  # like a heartbeat or the web page
    search._run()
    assert seen == [True]
    assert search.finding.problem is None


def test_each_stage_has_its_own_arrivals(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def run(_runner: StageRunner, load: LoadSpec, _ended: object) -> None:
        seeds.append(load.seed)
        raise NobodyToSendError

    monkeypatch.setattr(StageRunner, "run", run)
    search = make()
    for number in range(3):
        with pytest.raises(NobodyToSendError):
            search._run_stage(StagePlan(number, 10.0, "edge", 0.0, 100, 100))
    assert len(set(seeds)) == 3
