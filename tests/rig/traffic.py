"""Load on the real stack through Locust's page, and two runs that several tests read: a calm one and an overload."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.dashboards import RATE_INTERVAL
from tests.rig.running_stack import http, wait_for

if TYPE_CHECKING:
    from tests.rig.running_stack import Stack

USERS = 8
# Every field in which runs differ: Locust keeps the values of the last form.
SHAPE = {
    "endpoint": "both",
    "arrival": "closed",
    "rate": "",
    "run_time": "",
    "max_requests": "",
    "prompt_tokens": "64",
    "output_tokens": "32",
}
CALM_S = 45
# rate() does not look back beyond a counter's 0, so a curve from 0 can lack a sixteenth of a minute's requests.
COUNTED = 'count(loadtest_requests_total{outcome="ok"})'
ENDPOINTS = 2
# Longer requests than fit the KV cache together, three times as many as a two-core box ends: the queue grows at once.
TOO_MUCH = {"arrival": "poisson", "rate": "3", "prompt_tokens": "256", "output_tokens": "512"}
OVERLOAD_ALERTS = ("QueueBacklog", "QueueGrowing")


@dataclass(frozen=True)
class Run:
    """A run that has ended: its Unix times, its summary.json, and the rows of Locust's page."""

    stack: Stack
    started: float
    ended: float
    summary: dict[str, Any]
    rows: list[dict[str, Any]]

    def row(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(row for row in self.rows if row["name"] == name)
        return found


def page(stack: Stack) -> dict[str, Any]:
    """Return the statistics on Locust's page."""
    result: dict[str, Any] = json.loads(http(stack.url("LOCUST_PORT") + "/stats/requests"))
    return result


def scale_workers(stack: Stack, workers: int) -> None:
    """Run this number of workers; restarts or removes one that a test killed."""
    stack.compose("up", "-d", "--no-recreate", "--no-deps", "--scale", f"locust-worker={workers}", "locust-worker")


def start(stack: Stack, **options: str) -> None:
    """Start a run of 8 users on both endpoints as Locust's form does, on two workers."""
    scale_workers(stack, 2)
    wait_for("two workers", lambda: len(page(stack)["workers"]) == 2, timeout_s=60)
    form = {"user_count": USERS, "spawn_rate": USERS, "host": "http://vllm:8000", **SHAPE, **options}
    url, data = stack.url("LOCUST_PORT") + "/swarm", urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(url, data, timeout=60) as response:
        answer = json.load(response)
    assert answer["success"], answer


def summaries(stack: Stack) -> list[str]:
    """Return the paths of all runs' summaries, the newest first."""
    listed = stack.compose("exec", "locust", "sh", "-c", "ls -t /reports/*/summary.json", check=False)
    return listed.stdout.split()


def finish(stack: Stack, before: list[str], timeout_s: float) -> dict[str, Any]:
    """Return the summary of the run that began after `before` was listed, once it has ended."""
    wait_for("the run's report", lambda: len(summaries(stack)) > len(before), timeout_s=timeout_s)
    path = next(path for path in summaries(stack) if path not in before)
    result: dict[str, Any] = json.loads(stack.compose("exec", "locust", "cat", path).stdout)
    return result


@pytest.fixture(scope="session")
def calm_run(stack: Stack) -> Run:
    """45 s of 8 users that have just ended, with the host's metrics beside it."""
    stack.compose("--profile", "host", "up", "-d", "--wait", "--no-recreate", "node-exporter")
    try:
        if not stack.value(COUNTED) >= ENDPOINTS:  # no test has sent load before
            before = summaries(stack)
            start(stack, max_requests="32")
            finish(stack, before, 120)
        # The first rates look 20 s back, from a little before the run: nothing of earlier load may be in them.
        rates = "sum(rate(vllm:generation_tokens_total[30s])) + sum(rate(loadtest_requests_total[30s]))"
        wait_for("no traffic", lambda: stack.value(rates) == 0, 60)
        before = summaries(stack)
        ok = 'sum(loadtest_requests_total{outcome="ok"})'
        ok_before = stack.value(ok)
        start(stack, run_time=f"{CALM_S}s")
        summary = finish(stack, before, CALM_S + 120)
        rows = page(stack)["stats"]
        scale_workers(stack, 1)
        began = summary["run"]["started"]
        run = Run(stack, began, began + summary["run"]["duration_s"] + 5, summary, rows)
        counted = run.row("Aggregated")["num_requests"]
        wait_for("Prometheus has every request", lambda: stack.value(ok) - ok_before >= counted, 30)
    finally:
        stack.compose("--profile", "host", "rm", "--stop", "--force", "node-exporter")
    return run


@pytest.fixture(scope="session")
def overload(stack: Stack) -> Run:
    """More load than the engine can carry until the alerts fire; it has ended, and they are resolved."""
    before = summaries(stack)
    start(stack, **TOO_MUCH)
    started = time.time()
    try:
        wait_for("the alerts fire", lambda: all(map(stack.firing, OVERLOAD_ALERTS)), timeout_s=240)
        # A request tells how late it was sent when it has ended; a rate needs requests that end in two scrapes.
        delays = f"sum(rate(loadtest_schedule_delay_seconds_count[{RATE_INTERVAL}]))"
        wait_for("requests have ended", lambda: stack.value(delays) > 0, timeout_s=240)
    finally:
        http(stack.url("LOCUST_PORT") + "/stop", body={})
        ended = time.time()
    wait_for("the alerts are resolved", lambda: not any(map(stack.firing, OVERLOAD_ALERTS)), timeout_s=60)
    summary = finish(stack, before, 60)
    rows = page(stack)["stats"]
    scale_workers(stack, 1)
    return Run(stack, started, ended, summary, rows)
