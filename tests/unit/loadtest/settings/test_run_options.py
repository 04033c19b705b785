from __future__ import annotations

import pytest

from loadtest.input_error import InputError
from tests.rig.loadtest_objects import options


def test_defaults_are_closed_loop_on_both_endpoints() -> None:
    made = options()
    assert made.workload.endpoint == "both"
    assert made.workload.stream
    assert made.pacing.arrival == "closed"
    assert not made.slo.asked


def test_search_refuses_a_percentile_of_100() -> None:
    assert options("--slo-ttft-ms", "500", "--slo-percentile", "100").slo_percentile == 100
    assert options("--find-capacity", "--slo-ttft-ms", "500", "--slo-percentile", "99.9").capacity is not None


def test_limits_convert_from_ms_to_seconds() -> None:
    slo = options("--slo-ttft-ms", "500", "--slo-tpot-ms", "50").slo
    assert (slo.ttft, slo.tpot, slo.e2e) == (0.5, 0.05, None)


def test_trace_is_replayed_by_default() -> None:
    assert options("--trace", "t.csv").pacing.arrival == "trace"
    assert options("--trace", "t.csv", "--arrival", "closed").pacing.arrival == "closed"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--arrival", "poisson"], "--rate"),
        (["--rate", "3"], "--rate: has no meaning with --arrival closed"),
        (["--arrival", "constant", "--rate", "0"], "--rate"),
        (["--arrival", "constant", "--rate", "inf"], "--rate"),
        (["--arrival", "constant", "--rate", "x"], "--rate: 'x' is not a number"),
        (["--arrival", "trace"], "--trace"),
        (["--max-requests", "10", "--warmup-requests", "10"], "--max-requests"),
        (["--max-requests", "1.5"], "--max-requests: '1.5' is not a whole number"),
        (["--slo-percentile", "101"], "--slo-percentile"),
        (
            ["--find-capacity", "--slo-ttft-ms", "500", "--slo-percentile", "100"],
            "--slo-percentile: a search needs one",
        ),
        (["--request-timeout", "-1"], "--request-timeout"),
        (["--burstiness", "nan"], "--burstiness"),
    ],
)
def test_contradictory_options_are_refused(arguments: list[str], text: str) -> None:
    with pytest.raises(InputError) as caught:
        options(*arguments)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_host_is_refused() -> None:
    with pytest.raises(InputError, match="--host"):
        options(host="localhost")
