"""The load test as a person starts it: a Locust process from the command line."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import requests

from tests.fault_engine.process import ROOT, running_engine


def run_locust(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "--only-summary"]
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]])
def test_a_headless_run_calls_both_endpoints_and_counts_each_request_once(processes: list[str]) -> None:
    with running_engine("--ttft-ms", "20", "--gap-ms", "5") as url:
        run = run_locust("--host", url, "-u", "8", "-r", "8", "-t", "4s", "--output-tokens", "20", *processes)
        counted = requests.get(f"{url}/metrics", timeout=5).text
    assert run.returncode == 0, run.stdout
    rows = dict(re.findall(r"^POST +(/v1/\S+) +(\d+) +0\(0\.00%\)", run.stdout, re.MULTILINE))
    total = int(re.findall(r"^ +Aggregated +(\d+) ", run.stdout, re.MULTILINE)[0])
    ended = float(
        re.findall(r'^vllm:request_success_total{\S*finished_reason="length"\S* (\S+)', counted, re.MULTILINE)[0]
    )
    assert set(rows) == {"/v1/chat/completions", "/v1/completions"}
    assert sum(map(int, rows.values())) == total
    assert total <= ended <= total + 8  # the server may have ended what the stop cut off at the client


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "http://127.0.0.1:1"], "--host: http://127.0.0.1:1/v1/models does not answer"),
        (["--host", "nonsense"], "--host"),
        (["--slo-ttft-ms", "soon"], "--slo-ttft-ms: 'soon' is not a number"),
        (["--model", "nope"], "--model: 'nope' is not served; give one of: engine"),
        (["--seed", "-1"], "--seed: '-1' is not a whole number"),
        (["--prompt-tokens", "many"], "--prompt-tokens"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(engine: str, arguments: list[str], words: str) -> None:
    run = run_locust("--host", engine, *arguments, "-t", "5s")
    assert run.returncode == 2
    told = [line for line in run.stdout.splitlines() if words in line]
    assert len(told) == 1, run.stdout
    assert "Traceback" not in run.stdout
