"""Load on the real engine: no failures, and the engine's counters agree with the load test's totals."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from drills.load_run import reasons

from tests.rig.running_stack import ROOT
from tests.rig.traffic import USERS

if TYPE_CHECKING:
    from tests.rig.running_stack import Stack
    from tests.rig.traffic import Run


def test_no_request_fails_on_either_endpoint(calm_run: Run) -> None:
    rows = [calm_run.row(name) for name in ("/v1/chat/completions", "/v1/completions", "Aggregated")]
    assert [found["num_failures"] for found in rows] == [0, 0, 0]
    chat, completions, total = (found["num_requests"] for found in rows)
    assert chat > 0
    assert completions > 0
    assert chat + completions == total  # one event a request, or Locust's own rate would lie


def test_totals_match_the_engines_counters(calm_run: Run) -> None:
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


def test_headless_run_from_this_box(stack: Stack) -> None:
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless"]
    command += ["--host", stack.url("VLLM_PORT"), "-u", str(USERS), "-r", str(USERS), "-t", "12s"]
    done = subprocess.run(
        [*command, "--prompt-tokens", "64", "--output-tokens", "32"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    # On a busy box the client may rightly be reported as the bottleneck; nothing else may be wrong.
    reported = re.findall(r"^  - (.*)", done.stdout, re.MULTILINE)
    slow = [reason for reason in reported if reason.startswith("the client was the bottleneck")]
    assert reported == slow, done.stdout + done.stderr
    assert done.returncode == (2 if slow else 0), done.stdout + done.stderr
    assert re.search(r"Aggregated +[1-9]\d* +0\(0\.00%\)", done.stdout + done.stderr)
