from __future__ import annotations

import json

import pytest

from loadtest.client.request_record import Outcome, RequestRecord
from loadtest.results.totals import RunTotals
from loadtest.settings.run_options import Slo
from tests.rig.loadtest_objects import record

SLO = Slo(ttft=0.2, tpot=0.03, e2e=1.0)


def filled(*records: RequestRecord) -> RunTotals:
    totals = RunTotals(SLO)
    for each in records:
        totals.add(each)
    return totals


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"ttft": 0.2}, True),
        ({"ttft": 0.2001}, False),
        ({"tpot": 0.031}, False),
        ({"e2e": 1.1}, False),
        ({"ttft": None}, False),
        ({"tpot": None, "output_tokens": 1, "gaps": []}, True),
        ({"tpot": None, "output_tokens": 1, "gaps": [0.02]}, False),  # more than one token came
        ({"tpot": None, "output_tokens": 2}, False),
        ({"outcome": Outcome.TRUNCATED}, False),
        ({"outcome": Outcome.CANCELLED}, False),
    ],
)
def test_goodput_needs_ok_and_every_limit(change: dict[str, object], good: bool) -> None:
    assert filled(record(**change)).totals("chat").good == int(good)  # type: ignore[arg-type]  # fields of a record


@pytest.mark.parametrize(
    ("change", "late"),
    [
        ({"ttft": None, "duration": 0.19}, False),  # it may still have met the limit
        ({"ttft": None, "duration": 0.21}, True),
        ({"ttft": None, "duration": 0.0, "schedule_delay": 0.21}, True),  # it never got a connection
        ({"ttft": 0.1, "duration": 0.9}, False),
        ({"ttft": 0.3, "duration": 0.9}, True),
        ({"ttft": 0.1, "duration": 1.1}, True),
        ({"ttft": None, "duration": 9.0, "outcome": Outcome.TIMEOUT}, False),  # it failed, and counts as failed
        ({"ttft": 0.3, "outcome": Outcome.OK}, False),
    ],
)
def test_cut_off_request_misses_after_its_limit(change: dict[str, object], late: bool) -> None:
    cut = record(**{"outcome": Outcome.CANCELLED, **change})  # type: ignore[arg-type]  # fields of a record
    assert filled(cut).totals("chat").cut_off_late == int(late)
    without_slo = RunTotals(Slo())
    without_slo.add(cut)
    assert without_slo.totals("chat").cut_off_late == 0


def test_latencies_are_of_ok_requests_only() -> None:
    totals = filled(record(), record(Outcome.ERROR), record(Outcome.TIMEOUT)).totals("chat")
    assert totals.distributions["ttft"].count == 1
    assert totals.distributions["e2e"].count == 1
    assert totals.outcomes == {"ok": 1, "error": 1, "timeout": 1}


def test_open_loop_also_counts_from_due_time() -> None:
    totals = filled(record(schedule_delay=0.3)).totals("chat")
    assert totals.distributions["ttft"].summary().mean == pytest.approx(0.1)
    assert totals.distributions["ttft_from_due"].summary().mean == pytest.approx(0.4)
    assert totals.distributions["schedule_delay"].count == 1


def test_slo_limit_is_a_bucket_edge() -> None:
    edges = dict(RunTotals(Slo(ttft=0.1234)).totals("chat").distributions["ttft"].cumulative())
    assert 0.1234 in edges


def test_totals_merge_over_the_wire() -> None:
    records = [
        record(),
        record(Outcome.ERROR, endpoint="completions"),
        record(endpoint="completions", ttft=0.3, sent_at=1010.0),
        record(Outcome.CANCELLED, sent_at=990.0, duration=2.0),
    ]
    together, merged = filled(*records), RunTotals(SLO)
    for each in records:
        merged.merge(
            RunTotals.from_wire(
                SLO, json.loads(json.dumps(filled(each).to_wire(), default=_bytes), object_hook=_unbytes)
            )
        )
    assert merged.combined().outcomes == together.combined().outcomes
    assert merged.combined().cut_off_late == 1
    for endpoint in ("chat", "completions"):
        mine, theirs = merged.totals(endpoint), together.totals(endpoint)
        assert (mine.first_sent, mine.last_ended, mine.deltas_at) == (
            theirs.first_sent,
            theirs.last_ended,
            theirs.deltas_at,
        )
        assert (mine.output_tokens, mine.good, mine.cut_off_late, mine.cut_deltas) == (
            theirs.output_tokens,
            theirs.good,
            theirs.cut_off_late,
            theirs.cut_deltas,
        )
        for name, distribution in theirs.distributions.items():
            assert mine.distributions[name].cumulative() == distribution.cumulative()


def _bytes(value: bytes) -> dict[str, str]:
    return {"bytes": value.decode("latin-1")}


def _unbytes(value: dict[str, object]) -> object:
    return str(value["bytes"]).encode("latin-1") if set(value) == {"bytes"} else value


def test_cut_off_requests_count_their_deltas() -> None:
    totals = filled(record(Outcome.CANCELLED), record()).totals("chat")
    assert totals.cut_deltas == 21
    assert totals.output_tokens == 21


def test_deltas_count_in_their_arrival_second() -> None:
    totals = filled(record(sent_at=1000.5, ttft=0.3, gaps=[0.15, 0.1, 1.0])).totals("chat")
    assert totals.deltas_at == {1000: 2, 1001: 1, 1002: 1}


def test_prompt_length_mismatch_is_counted() -> None:
    assert filled(record(expected_prompt_tokens=99)).totals("chat").prompt_mismatches == 1
    assert filled(record(expected_prompt_tokens=None)).totals("chat").prompt_mismatches == 0
