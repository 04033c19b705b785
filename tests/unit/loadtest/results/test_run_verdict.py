from __future__ import annotations

import pytest

from loadtest.client.request_record import Outcome
from loadtest.results.reconcile import Reconciliation
from loadtest.results.run_verdict import judge_run
from loadtest.results.server_counters import ServerCounters
from tests.rig.loadtest_objects import record, results

SLO = ("--slo-ttft-ms", "200")


def test_good_run_is_valid_and_exits_0() -> None:
    verdict = judge_run(results(*[record()] * 100, arguments=SLO), None)
    assert (verdict.reasons, verdict.slo_met, verdict.attainment, verdict.exit_code) == ((), True, 1.0, 0)


def test_too_few_good_requests_miss_the_slo() -> None:
    good, slow = record(), record(ttft=0.3)
    assert judge_run(results(*[good] * 95, *[slow] * 5, arguments=SLO), None).exit_code == 0
    missed = judge_run(results(*[good] * 94, *[slow] * 6, arguments=SLO), None)
    assert (missed.valid, missed.slo_met, missed.exit_code) == (True, False, 1)


def test_cancelled_requests_do_not_count() -> None:
    failed = [record()] * 9, [record(Outcome.ERROR)]
    assert judge_run(results(*failed[0], *failed[1], arguments=SLO), None).attainment == pytest.approx(0.9)
    assert judge_run(results(*failed[0], record(Outcome.CANCELLED), arguments=SLO), None).attainment == 1.0


def test_late_cut_off_request_misses_the_slo() -> None:
    hung = record(Outcome.CANCELLED, ttft=None, duration=5.0)
    verdict = judge_run(results(*[record()] * 9, hung, arguments=SLO), None)
    assert (verdict.valid, verdict.attainment, verdict.failures) == (True, pytest.approx(0.9), 0)
    nothing_else = judge_run(results(hung, arguments=SLO), None)
    assert (nothing_else.valid, nothing_else.attainment, nothing_else.exit_code) == (True, 0.0, 1)


def test_failure_without_slo_exits_1() -> None:
    assert judge_run(results(record(), record()), None).exit_code == 0
    assert judge_run(results(record(), record(Outcome.TRUNCATED)), None).exit_code == 1


def test_empty_run_is_invalid() -> None:
    assert judge_run(results(), None).exit_code == 2
    assert judge_run(results(record(Outcome.CANCELLED)), None).exit_code == 2


@pytest.mark.parametrize(
    ("change", "report", "text"),
    [
        ({}, {"cpu_s": 9.5, "wall_s": 10.0}, "the client was the bottleneck: local was above 90 %"),
        ({"lags": [0.02] * 22, "merged_deltas": 5}, {}, "the client was the bottleneck: it read late"),
        ({"schedule_delay": 0.02}, {}, "arrivals were late: 10 of 10"),
    ],
)
def test_overloaded_client_invalidates_the_run(change: dict[str, object], report: dict[str, object], text: str) -> None:
    verdict = judge_run(results(*[record(**change)] * 10, **report), None)  # type: ignore[arg-type]  # fields of a record
    assert verdict.exit_code == 2
    assert any(text in reason for reason in verdict.reasons), verdict.reasons


@pytest.mark.parametrize(
    ("change", "report"),
    [
        ({}, {"cpu_s": 0.95, "wall_s": 1.0}),
        ({"merged_deltas": 5}, {}),
        ({"lags": [0.02] * 22}, {}),
        ({"schedule_delay": 0.005}, {}),
    ],
)
def test_harmless_conditions_stay_valid(change: dict[str, object], report: dict[str, object]) -> None:
    assert judge_run(results(*[record(**change)] * 10, **report), None).valid  # type: ignore[arg-type]  # fields of a record


def test_lost_process_reports_its_requests() -> None:
    run = results(*[record()] * 10, in_flight=3)
    run.lose("local")
    (reason,) = judge_run(run, None).reasons
    assert "load generator local was lost" in reason
    assert "3 requests under way" in reason
    found = Reconciliation(ServerCounters(generation_tokens=50, prompt_tokens=9), 2, 8, 0, ())
    assert "counted 42 output and 7 prompt tokens more than we" in judge_run(run, found).reasons[0]


def test_server_disagreement_invalidates_the_run() -> None:
    found = Reconciliation(ServerCounters(), 0, 0, 0, ("output tokens disagree",))
    assert judge_run(results(record()), found).reasons == ("output tokens disagree",)
