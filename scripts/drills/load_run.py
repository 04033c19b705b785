"""Load tests started by Locust's page, and their reports."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from drills import direct_http
from drills.stack import StackError, wait_for

if TYPE_CHECKING:
    from drills.stack import RunningStack

# Short requests, so that many end within a drill, on a CPU too. All fields of Locust's page are set: one that is not
# sent keeps the last run's value.
SHAPE = {
    "prompt_tokens": "32",
    "output_tokens": "32",
    "endpoint": "completions",
    "ignore_eos": "true",
    "stream": "true",
    "arrival": "closed",
    "rate": "",
    "seed": "",
    "max_requests": "",
    "request_timeout": "300",
    "run_time": "",
    "dataset": "",
    "trace": "",
    "find_capacity": "false",
}


class LoadTestRun:
    """One load test, from its start to its report."""

    def __init__(self, stack: RunningStack, **options: object) -> None:
        """Start it with Locust's options on top of SHAPE. Raises StackError when Locust refuses."""
        self._stack = stack
        self._root = stack.url("locust", 8089)
        self._before = set(reports(stack))
        users = options.pop("users", 8)
        form = {
            "user_count": users,
            "spawn_rate": users,
            "host": stack.env("locust", "LOCUST_HOST"),
            **SHAPE,
            **options,
        }
        if key := stack.key:
            form["api_key"] = key
        answer = direct_http.post(f"{self._root}/swarm", data=form, timeout=60).json()
        if not answer["success"]:
            raise StackError(f"the load test does not start: {answer['message']}")

    def status(self) -> dict[str, Any]:
        """The master's statistics, as shown on Locust's page."""
        return status(self._stack)

    def requests_ended(self) -> int:
        """Number of requests that have ended."""
        rows = self.status()["stats"]
        return int(next(row["num_requests"] for row in rows if row["name"] == "Aggregated"))

    def wait_until_busy(self, ended: int = 16, within_s: float = 120) -> None:
        """Wait until some requests have ended. Raises StackError when that takes too long."""
        wait_for(f"{ended} requests of the load test have ended", lambda: self.requests_ended() >= ended, within_s)

    def stop(self) -> None:
        """Stop it, like the page's button."""
        direct_http.post(f"{self._root}/stop", timeout=120).raise_for_status()

    def summary(self, within_s: float) -> dict[str, Any]:
        """The report's summary, once it is written. Raises StackError when it is not written in time."""
        path = wait_for("the load test's report", lambda: set(reports(self._stack)) - self._before, within_s).pop()
        found: dict[str, Any] = json.loads(self._stack.shell("locust", f"cat {path}"))
        return found


def reasons(summary: dict[str, Any]) -> list[str]:
    """Reasons why a run is invalid, except a slow client: engine and load share this box's cores."""
    return [
        reason
        for reason in summary["verdict"]["reasons"]
        if not reason.startswith(("the client was the bottleneck", "arrivals were late"))
    ]


def status(stack: RunningStack) -> dict[str, Any]:
    """The master's statistics, as shown on Locust's page."""
    page = direct_http.get(f"{stack.url('locust', 8089)}/stats/requests", timeout=10)
    page.raise_for_status()
    shown: dict[str, Any] = page.json()
    return shown


def worker_ids(stack: RunningStack) -> set[str]:
    """Ids of the master's connected workers; a killed one stays for some seconds."""
    return {str(one["id"]) for one in status(stack)["workers"] if one["state"] not in {"missing", "stopped"}}


def workers(stack: RunningStack) -> int:
    """Number of connected workers."""
    return len(worker_ids(stack))


def reports(stack: RunningStack) -> list[str]:
    """Paths of all summaries on the reports volume."""
    return stack.shell("locust", "find /reports -mindepth 2 -maxdepth 2 -name summary.json").split()
