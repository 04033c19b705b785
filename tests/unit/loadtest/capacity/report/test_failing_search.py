"""A search whose requests fail, in everything that a person reads of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from loadtest.capacity.answer import SearchAnswer, SearchSettings, StageVerdict
from loadtest.capacity.finding import SearchFinding
from loadtest.capacity.report.capacity_page import render_capacity
from loadtest.capacity.report.capacity_summary import exit_code, summarize_search
from loadtest.capacity.report.capacity_terminal import print_capacity
from loadtest.capacity.report.progress import SearchProgress
from loadtest.capacity.stage import Decision
from loadtest.locust_plugin.capacity_tab import _row
from loadtest.results.failure_texts import FailureTexts
from tests.rig.capacity_objects import record
from tests.rig.loadtest_objects import options, plan

if TYPE_CHECKING:
    from loadtest.capacity.stage_record import StageRecord

WORDS = "HTTP 400: Unsupported parameter: 'max_tokens'"
TIMES: dict[str, Any] = {"ttft_s": None, "tpot_s": None, "e2e_s": None}


def failing(missed: int, outcome: str, text: str) -> StageRecord:
    failures = FailureTexts()
    failures.add(outcome, text, missed)
    bad = {**TIMES, "rejected": outcome == "rejected"}
    return replace(record(1.0, missed=missed, bad=bad), failures=failures)


def searched(stage: StageRecord) -> tuple[dict[str, Any], SearchFinding]:
    verdict = StageVerdict(stage.result.plan, Decision.MISSED, 100, 0.0, 0.0, 0.1, 100.0, False, (), False)
    finding = SearchFinding(options("--slo-ttft-ms", "500"), plan(), (), SearchSettings(), 60.0)
    finding.answer = SearchAnswer("never_met", "failed", None, None, None, 0.95, (verdict,))
    finding.stages.append(stage)
    return summarize_search(finding), finding


@pytest.mark.parametrize(
    ("missed", "outcome", "text"),
    [
        (100, "error", WORDS),
        (50, "rejected", "HTTP 503: no healthy upstream"),
        (100, "connect", "Connection refused"),
        (100, "timeout", "no end within 5 s"),
    ],
)
def test_servers_words_are_everywhere(missed: int, outcome: str, text: str) -> None:
    stage = failing(missed, outcome, text)
    summary, finding = searched(stage)
    console = Console(width=200)
    with console.capture() as printed:
        print_capacity(summary, console)
    page = render_capacity(summary, {0: []})
    terminal = printed.get()
    assert f"Never met: at 1.00 requests/s {missed} of 100 requests failed" in terminal
    assert f"{missed} x {outcome}: {text}" in terminal
    assert terminal.count(text) == 1
    assert "requests failed" in page
    assert text.replace("'", "&#39;") in page
    for shown in (terminal, page):
        assert "Try next" not in shown
    stored = json.loads(json.dumps(summary))
    expected = [{"outcome": outcome, "text": text, "count": missed}]
    assert stored["failures"] == stored["stages"][0]["failures"] == expected
    assert (stored["verdict"]["limit"]["cause"], stored["verdict"]["limit"]["next"]) == ("requests_failed", None)
    assert exit_code(stored) == 1

    progress = SearchProgress(SearchSettings(), 60.0)
    progress.begin_stage(stage.result.plan)
    assert finding.answer is not None
    progress.end_stage(finding.answer, stage)
    assert progress.lines[-1] == f"  failed: {missed} x {outcome}: {text}"
    assert _row(progress.rows[0])["failures"] == f"{missed} x {outcome}: {text}"


def test_cause_that_is_not_known_is_said_so() -> None:
    summary, _ = searched(record(1.0, missed=100))  # TTFT missed, on a server without metrics
    console = Console(width=200)
    with console.capture() as printed:
        print_capacity(summary, console)
    assert "Never met: even the lowest rate misses the SLO" in printed.get()
    for shown in (printed.get(), render_capacity(summary, {0: []})):
        assert "cause not known" in shown
        assert "no metrics of vLLM at /metrics" in shown
        assert "Try next" not in shown
