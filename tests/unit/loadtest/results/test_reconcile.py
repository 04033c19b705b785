from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.client.request_record import Outcome
from loadtest.results.reconcile import Reconciliation, reconcile
from loadtest.results.server_counters import ServerCounters, add_up, difference, parse_counters
from loadtest.results.totals import RunTotals
from loadtest.settings.run_options import Slo
from tests.rig.loadtest_objects import record

SERVER = ServerCounters(
    prompt_tokens=100_000, generation_tokens=21_000, cache_queries=100_000, cache_hits=0, ended={"length": 1000}
)


def compare(server: ServerCounters = SERVER, *, cut: int = 0, common: dict[str, int] | None = None) -> Reconciliation:
    totals = RunTotals(Slo())
    for _ in range(1000):
        totals.add(record())
    for _ in range(cut):
        totals.add(record(Outcome.CANCELLED))
    return reconcile(server, totals, common or {})


def test_equal_counts_agree() -> None:
    found = compare()
    assert found.agrees
    assert (found.output_tokens, found.prompt_tokens, found.requests) == (21_000, 100_000, 1000)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"generation_tokens": 21_000 * 1.006}, "output tokens disagree by 0.6%"),
        ({"generation_tokens": 21_000 * 0.99}, "output tokens disagree by 1.0%"),
        ({"prompt_tokens": 100_000 * 1.01}, "prompt tokens disagree"),
        ({"generation_tokens": -5}, "restarted"),
        ({"busy": 2}, "2 requests ran before"),
        ({"ended": {"length": 1000, "stop": 20}}, "it ended 1020 requests, we sent it 1000"),
        ({"cache_hits": 30_000}, "the prefix cache was warm: 14.0%"),
    ],
)
def test_disagreements_are_reported(change: dict[str, object], text: str) -> None:
    problems = compare(replace(SERVER, **change)).problems  # type: ignore[arg-type]  # fields of the counters
    assert any(text in problem for problem in problems), problems


def test_half_a_percent_is_tolerated() -> None:
    assert compare(replace(SERVER, generation_tokens=21_000 * 1.004, prompt_tokens=100_000 * 0.996)).agrees


def test_intended_prefix_hits_are_not_warm_cache() -> None:
    assert compare(replace(SERVER, cache_hits=60_000), common={"chat": 50}).agrees
    assert not compare(replace(SERVER, cache_hits=80_000), common={"chat": 50}).agrees


def test_cut_off_request_may_add_some_tokens() -> None:
    more = replace(
        SERVER,
        generation_tokens=21_000 + 10 * (21 + 12),
        prompt_tokens=101_000,
        ended={"length": 1000, "abort": 10},
    )
    assert compare(more, cut=10).agrees
    assert not compare(replace(more, generation_tokens=22_500), cut=10).agrees


def test_self_test_of_joining_engine_is_tolerated() -> None:
    few = [record()] * 20
    totals = RunTotals(Slo())
    for each in few:
        totals.add(each)
    counted = ServerCounters(prompt_tokens=2040, generation_tokens=421, cache_queries=2040, ended={"length": 21})
    assert reconcile(replace(counted, joined=1), totals, {}).agrees
    assert not reconcile(counted, totals, {}).agrees
    assert not reconcile(replace(counted, joined=1, ended={"length": 26}), totals, {}).agrees


def test_lost_process_reports_surplus_tokens() -> None:
    totals = RunTotals(Slo())
    for _ in range(1000):
        totals.add(record())
    more = replace(SERVER, generation_tokens=21_500, prompt_tokens=103_000, ended={"length": 1030})
    found = reconcile(more, totals, {}, lost=True)
    assert found.problems == ()
    assert not found.agrees
    assert found.surplus == "the server counted 500 output and 3000 prompt tokens more than we"
    less = replace(SERVER, generation_tokens=20_000)
    assert any("output tokens disagree" in problem for problem in reconcile(less, totals, {}, lost=True).problems)


PAGE = """
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 10.0
vllm:prompt_tokens_total{engine="1",model_name="m"} 5.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 7.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop"} 3.0
vllm:request_success_total{engine="1",finished_reason="stop"} 1.0
vllm:request_success_total{engine="0",finished_reason="abort"} 1.0
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0"} 1.0
"""


def test_counters_add_up_over_engines() -> None:
    counters = parse_counters(PAGE)
    assert counters is not None
    assert (counters.prompt_tokens, counters.generation_tokens, counters.busy) == (15, 7, 3)
    assert counters.ended == {"stop": 4, "abort": 1}


def test_page_without_vllm_counters_is_none() -> None:
    assert parse_counters("# TYPE up gauge\nup 1\n") is None


def test_difference_is_the_increase() -> None:
    before = ServerCounters(prompt_tokens=1, generation_tokens=2, busy=4, ended={"stop": 1})
    after = ServerCounters(prompt_tokens=11, generation_tokens=22, ended={"stop": 3, "abort": 2})
    between = difference(add_up({"a": before}), add_up({"a": after}))
    assert (between.prompt_tokens, between.generation_tokens, between.busy) == (10, 20, 4)
    assert between.ended == {"stop": 2, "abort": 2}
