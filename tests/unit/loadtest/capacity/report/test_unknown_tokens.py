"""A search on a server that counts no tokens: rates and latencies are known, tokens are not."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from loadtest.capacity.answer import SearchAnswer, SearchSettings, StageVerdict
from loadtest.capacity.finding import SearchFinding
from loadtest.capacity.report.capacity_metrics import CapacityMetrics
from loadtest.capacity.report.capacity_page import render_capacity
from loadtest.capacity.report.capacity_summary import summarize_search
from loadtest.capacity.report.capacity_terminal import print_capacity
from loadtest.capacity.stage import Decision
from tests.rig.capacity_objects import record, request
from tests.rig.loadtest_objects import options, plan


def searched() -> dict[str, Any]:
    counted_but_one = tuple(request(place / 10, uncounted=place == 7, tpot_s=None) for place in range(100))
    stage = record(10.0, counted_but_one)
    verdict = StageVerdict(stage.result.plan, Decision.MET, 100, 1.0, 0.97, 1.0, 0.0, True, (), False)
    finding = SearchFinding(options("--slo-ttft-ms", "500"), plan(), (), SearchSettings(), 60.0)
    finding.answer = SearchAnswer("floor", "max_rate", 10.0, None, None, 0.95, (verdict,))
    finding.stages.append(stage)
    return summarize_search(finding)


def test_search_without_token_counts_shows_none() -> None:
    summary = searched()
    capacity, (stage,) = summary["capacity"], summary["stages"]
    assert capacity["requests_per_second"]["low"] == 10.0
    assert capacity["output_tokens_mean"] is capacity["output_tokens_per_second"]["low"] is None
    assert stage["output_tokens_mean"] is stage["output_tokens_per_s"] is None
    console = Console(width=200)
    with console.capture() as printed:
        print_capacity(summary, console)
    assert "output tokens/s" not in printed.get()
    assert "10.00" in render_capacity(summary, {0: []})
    metrics = CapacityMetrics(None)
    metrics.add_result(summary)
    samples = {sample.name for family in metrics.collect() for sample in family.samples}
    assert "headroom_capacity_requests_per_second" in samples
    assert not any("output_tokens" in name for name in samples)
