from __future__ import annotations

import latency_buckets

from loadtest.results import histogram_buckets


def test_slo_joins_the_default_edges() -> None:
    families = latency_buckets.families(0.42, 0.033)
    assert set(families["time_to_first_token"]) == {*latency_buckets.TIME_TO_FIRST_TOKEN, 0.42}
    assert set(families["inter_token_latency"]) == {*latency_buckets.INTER_TOKEN_LATENCY, 0.033}
    assert set(families["request_latency"]) > set(latency_buckets.REQUEST_LATENCY)


def test_slo_on_an_edge_adds_none() -> None:
    # vLLM refuses edges that do not rise.
    for edges in latency_buckets.families(0.5, 0.05).values():
        assert edges == sorted(set(edges))


def test_short_queue_times_have_edges() -> None:
    assert sum(edge < 0.3 for edge in latency_buckets.families(0.5, 0.05)["request_latency"]) >= 5


def test_engine_and_load_test_share_edges() -> None:
    assert histogram_buckets.TTFT == latency_buckets.TIME_TO_FIRST_TOKEN
    assert histogram_buckets.TOKEN == latency_buckets.INTER_TOKEN_LATENCY
    assert set(histogram_buckets.REQUEST) == set(latency_buckets.families(0.5, 0.05)["request_latency"])
