"""Load on the real engine: no failures, and Prometheus tells the same story for the engine and for the load test."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from running_stack import ROOT, http, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from running_stack import Stack

RUN_S = 60
USERS = 8
SUMMARY: dict[str, Any] = {}
SHAPE = {"prompt_tokens": "64", "output_tokens": "32"}


def report(stack: Stack) -> dict[str, Any]:
    """What Locust's page shows."""
    result: dict[str, Any] = json.loads(http(stack.url("LOCUST_PORT") + "/stats/requests"))
    return result


def scale_workers(stack: Stack, workers: int) -> None:
    """Run so many workers; one that a test killed comes back, or goes."""
    stack.compose("up", "-d", "--no-recreate", "--no-deps", "--scale", f"locust-worker={workers}", "locust-worker")


@pytest.fixture(scope="module", autouse=True)
def one_worker_again(stack: Stack) -> Iterator[None]:
    """Leave the stack as it was found."""
    yield
    scale_workers(stack, 1)


def start(stack: Stack, **options: str) -> None:
    """Start a run of 8 users on both endpoints as Locust's form does, on two workers."""
    scale_workers(stack, 2)
    wait_for("two workers", lambda: len(report(stack)["workers"]) == 2, timeout_s=60)
    form = {"user_count": USERS, "spawn_rate": USERS, "host": "http://vllm:8000", **SHAPE, **options}
    url, data = stack.url("LOCUST_PORT") + "/swarm", urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(url, data, timeout=60) as response:
        answer = json.load(response)
    assert answer["success"], answer


def summaries(stack: Stack) -> list[str]:
    """Paths of all runs' summaries, the newest first."""
    listed = stack.compose("exec", "locust", "sh", "-c", "ls -t /reports/*/summary.json", check=False)
    return listed.stdout.split()


def finish(stack: Stack, before: list[str], timeout_s: float) -> dict[str, Any]:
    """The summary of the run that began after `before` was listed, once it has ended."""
    wait_for("the run's report", lambda: len(summaries(stack)) > len(before), timeout_s=timeout_s)
    path = next(path for path in summaries(stack) if path not in before)
    result: dict[str, Any] = json.loads(stack.compose("exec", "locust", "cat", path).stdout)
    return result


def row(stack: Stack, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in report(stack)["stats"] if row["name"] == name)
    return found


@pytest.fixture(scope="module")
def loaded(stack: Stack) -> Stack:
    """The stack just after a run, whose summary is in `SUMMARY`."""
    before = summaries(stack)
    start(stack, run_time=f"{RUN_S}s")
    SUMMARY.update(finish(stack, before, RUN_S + 120))
    wait_for(
        "Prometheus has every request",
        lambda: stack.value('sum(loadtest_requests_total{outcome="ok"})') >= row(stack, "Aggregated")["num_requests"],
        timeout_s=30,
    )
    return stack


def test_no_request_fails_on_either_endpoint(loaded: Stack) -> None:
    rows = [row(loaded, name) for name in ("/v1/chat/completions", "/v1/completions", "Aggregated")]
    assert [found["num_failures"] for found in rows] == [0, 0, 0]
    chat, completions, total = (found["num_requests"] for found in rows)
    assert chat > 0
    assert completions > 0
    assert chat + completions == total  # one event a request, or Locust's own rate would lie


def test_prometheus_has_ttft_and_tokens_of_engine_and_load_test(loaded: Stack) -> None:
    window = f"[{RUN_S + 60}s]"
    for tokens in ("vllm:generation_tokens_total", "loadtest_generation_tokens_total"):
        assert loaded.value(f"sum(rate({tokens}{window}))") > 0
    for ttft in ("vllm:time_to_first_token_seconds", "loadtest_time_to_first_token_seconds"):
        p95 = loaded.value(f"histogram_quantile(0.95, sum by (le) (rate({ttft}_bucket{window})))")
        assert 0 < p95 < math.inf


def test_requests_and_tokens_are_those_that_the_engine_counted(loaded: Stack) -> None:
    assert loaded
    assert SUMMARY["verdict"]["reasons"] == []
    server = SUMMARY["server"]
    assert server["reconciled"]
    # What the end of the run cut off is the only thing that the engine may know better.
    cut = SUMMARY["requests"]["cancelled"]
    assert cut <= USERS
    assert 0 <= server["generation_tokens"] - server["client_generation_tokens"] <= cut * 32
    assert SUMMARY["requests"]["ok"] <= sum(server["requests"].values()) <= SUMMARY["requests"]["total"]
    assert SUMMARY["tokens"]["prompts_of_unexpected_length"] == 0


def test_a_worker_killed_in_a_run_is_named_and_what_it_did_is_bounded(stack: Stack) -> None:
    before = summaries(stack)
    start(stack, run_time="40s")
    wait_for("both workers are at work", lambda: row(stack, "Aggregated")["num_requests"] >= 16, timeout_s=60)
    victim = stack.container("locust-worker")
    victim.kill()
    summary = finish(stack, before, 160)
    assert any("was lost" in reason for reason in summary["verdict"]["reasons"]), summary["verdict"]
    assert summary["verdict"]["exit_code"] == 2
    server = summary["server"]
    # At most what the killed worker had under way or had not reported yet (a second's worth), and what the end cut off.
    unseen = sum(server["requests"].values()) - summary["requests"]["ok"]
    assert 0 <= unseen <= 2 * USERS
    assert server["generation_tokens"] >= server["client_generation_tokens"]


def queries() -> list[str]:
    """Every query of every dashboard, with Grafana's variables filled in."""
    found = []
    for path in (ROOT / "docker/grafana/dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            found += [target["expr"] for target in panel["targets"]]
    # Nothing may fire after a calm run; then there is nothing to show.
    found = [query for query in found if "ALERTS{" not in query]
    assert len(found) > 20
    return [query.replace("$__rate_interval", f"{RUN_S + 60}s").replace("$model", ".*") for query in found]


@pytest.mark.parametrize("query", queries())
def test_dashboard_query_returns_a_number_after_load(loaded: Stack, query: str) -> None:
    result = loaded.query(query)
    assert result
    assert any(not math.isnan(float(series["value"][1])) for series in result)


def test_headless_run_from_this_box_as_the_readme_says(stack: Stack) -> None:
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless"]
    command += ["--host", stack.url("VLLM_PORT"), "-u", str(USERS), "-r", str(USERS), "-t", "30s"]
    done = subprocess.run(
        [*command, "--prompt-tokens", "64", "--output-tokens", "32"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Aggregated +[1-9]\d* +0\(0\.00%\)", done.stdout + done.stderr)
