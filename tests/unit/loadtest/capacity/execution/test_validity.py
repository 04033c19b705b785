from __future__ import annotations

import pytest

from loadtest.capacity.execution.validity import client_figures, client_problems, tolerance_s, void_reasons
from loadtest.settings.run_options import Slo
from tests.rig.loadtest_objects import record, results

ON_TIME = [0.001] * 300


def test_lateness_tolerance() -> None:
    assert tolerance_s(Slo(ttft=1.0)) == 0.05
    assert tolerance_s(Slo(ttft=0.1)) == tolerance_s(Slo()) == 0.01


@pytest.mark.parametrize(
    ("delays", "late"),
    [
        (ON_TIME, False),
        ([0.2, 0.2, *[0.001] * 6], False),  # two are too few
        ([*[0.2] * 3, *[0.001] * 300], False),  # less than 1 %
        ([*[0.2] * 4, *[0.001] * 300], True),
    ],
)
def test_late_arrivals_blame_the_client(delays: list[float], late: bool) -> None:
    run = results(record(), arguments=("--slo-ttft-ms", "500"))
    problems = client_problems(run, client_figures(run, delays))
    assert bool(problems) == late
    assert all("arrivals were late" in problem and "25 ms" in problem for problem in problems)


def test_late_reads_blame_the_client() -> None:
    slow = record(lags=[0.08] * 22, merged_deltas=3)
    run = results(slow, arguments=("--slo-ttft-ms", "500"))
    [problem] = client_problems(run, client_figures(run, ON_TIME))
    assert "the client read late (p99 80 ms" in problem
    apart = results(record(lags=[0.08] * 22), arguments=("--slo-ttft-ms", "500"))
    assert client_problems(apart, client_figures(apart, ON_TIME)) == []  # the kernel's timestamps are still right


def test_busy_process_blames_the_client() -> None:
    run = results(record(), cpu_s=9.5, wall_s=10.0)
    [problem] = client_problems(run, client_figures(run, ON_TIME))
    assert "above 90 % of a core" in problem


def test_leaving_process_voids_stage() -> None:
    run = results(record())
    assert void_reasons(run, None, ()) == ()
    run.leave("local")
    run.ended_at = run.plan.started + 1
    assert void_reasons(run, None, ("client",)) == (
        "client",
        "load generator local was told to end during the stage",
    )
