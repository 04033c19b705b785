"""Load on the real engine: no failures, and Prometheus tells the same story for the engine and for the load test."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from drills.load_run import reasons

from tests.rig.running_stack import ROOT, wait_for
from tests.rig.traffic import USERS, finish, page, scale_workers, start, summaries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.running_stack import Stack
    from tests.rig.traffic import Run


@pytest.fixture(scope="module", autouse=True)
def one_worker_again(stack: Stack) -> Iterator[None]:
    """Leave the stack as it was found."""
    yield
    scale_workers(stack, 1)


def test_no_request_fails_on_either_endpoint(calm_run: Run) -> None:
    rows = [calm_run.row(name) for name in ("/v1/chat/completions", "/v1/completions", "Aggregated")]
    assert [found["num_failures"] for found in rows] == [0, 0, 0]
    chat, completions, total = (found["num_requests"] for found in rows)
    assert chat > 0
    assert completions > 0
    assert chat + completions == total  # one event a request, or Locust's own rate would lie


def test_requests_and_tokens_are_those_that_the_engine_counted(calm_run: Run) -> None:
    summary = calm_run.summary
    assert reasons(summary) == []
    server = summary["server"]
    assert server["reconciled"]
    # What the end of the run cut off is the only thing that the engine may know better.
    cut = summary["requests"]["cancelled"]
    assert cut <= USERS
    assert 0 <= server["generation_tokens"] - server["client_generation_tokens"] <= cut * 32
    assert summary["requests"]["ok"] <= sum(server["requests"].values()) <= summary["requests"]["total"]
    assert summary["tokens"]["prompts_of_unexpected_length"] == 0


def test_a_worker_killed_in_a_run_is_named_and_what_it_did_is_bounded(stack: Stack) -> None:
    before = summaries(stack)
    start(stack, run_time="40s")

    def requests() -> int:
        return sum(row["num_requests"] for row in page(stack)["stats"] if row["name"] == "Aggregated")

    wait_for("both workers are at work", lambda: requests() >= 16, timeout_s=60)
    victim = stack.container("locust-worker")
    victim.kill()
    summary = finish(stack, before, 160)
    assert any("was lost" in reason for reason in summary["verdict"]["reasons"]), summary["verdict"]
    assert summary["verdict"]["exit_code"] == 2
    server = summary["server"]
    # At most what the killed worker had under way or had not reported yet (seconds' worth), and what the end cut off.
    unseen = sum(server["requests"].values()) - summary["requests"]["ok"]
    assert 0 <= unseen <= 4 * USERS
    assert server["generation_tokens"] >= server["client_generation_tokens"]


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
    # On a busy box it may say, rightly, that it was too slow itself; nothing else may be wrong.
    told = re.findall(r"^  - (.*)", done.stdout, re.MULTILINE)
    slow = [reason for reason in told if reason.startswith("the client was the bottleneck")]
    assert told == slow, done.stdout + done.stderr
    assert done.returncode == (2 if slow else 0), done.stdout + done.stderr
    assert re.search(r"Aggregated +[1-9]\d* +0\(0\.00%\)", done.stdout + done.stderr)
