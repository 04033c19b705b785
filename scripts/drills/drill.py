"""Command line of the drills: selection, question, table of results."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import docker.errors
import requests
from drills import engine_drills, load_drills, machine_drills, monitoring_drills
from drills.drill_report import markdown, table
from drills.scene import DrillError, DrillResult, Scene, Skip
from drills.stack import RunningStack, StackError

if TYPE_CHECKING:
    from collections.abc import Callable

NEEDS = ("vllm", "prometheus", "locust", "locust-worker")
READY_S = 120


@dataclass(frozen=True)
class Drill:
    """One drill; `costs` is shown before the person agrees."""

    run: Callable[[Scene], None]
    costs: str

    @property
    def what(self) -> str:
        """First line of the drill's docstring."""
        return (self.run.__doc__ or "").splitlines()[0]


SHORT = "requests under way are lost; the engine is away for as long as a start takes"
LOAD = "loads the engine for a minute"
DRILLS = {
    "engine-killed": Drill(engine_drills.killed, SHORT),
    "engine-frozen": Drill(engine_drills.frozen, "no answers for two minutes, then as for engine-killed"),
    "engine-out-of-memory": Drill(engine_drills.out_of_memory, SHORT),
    "engine-bad-flag": Drill(engine_drills.bad_flag, "the engine is away for two minutes and a start"),
    "model-emptied-running": Drill(engine_drills.model_emptied_running, "no start of the engine works for ten seconds"),
    "model-emptied-before-start": Drill(
        engine_drills.model_emptied_before_start,
        "the engine is away for two minutes and a start; the model is downloaded anew, beside the one that is there",
    ),
    "prometheus-killed": Drill(monitoring_drills.prometheus_killed, f"{LOAD}; some seconds of metrics are missing"),
    "prometheus-disk-full": Drill(monitoring_drills.prometheus_disk_full, "a minute of metrics is missing"),
    "grafana-killed": Drill(monitoring_drills.grafana_killed, "the dashboards are away for some seconds"),
    "worker-killed": Drill(load_drills.worker_killed, LOAD),
    "master-killed": Drill(load_drills.master_killed, f"{LOAD}; a load test that runs is lost"),
    "network-cut": Drill(load_drills.network_cut, "nobody reaches the engine for 75 seconds"),
    "overload-10x": Drill(load_drills.overload, "most requests are refused for six minutes"),
    "unread-streams": Drill(load_drills.unread_streams, "500 requests are in the queue, then three minutes pass"),
    "machine-restart": Drill(machine_drills.restarted, "everything is away for as long as a start of the engine takes"),
}


def main() -> int:
    """Run the chosen drills; return the exit code of scripts/drill."""
    options = read_options()
    if options.names == ["list"]:
        for name, drill in DRILLS.items():
            print(f"{name:<27} {drill.what}\n{'':<27} costs: {drill.costs}")
        return 0
    try:
        stack = RunningStack(options.project)
        check_ready(stack)
    except StackError as error:
        print(f"drill: {error}", file=sys.stderr)
        return 2
    names = list(DRILLS) if options.names == ["all"] else options.names
    if not agreed(stack, {name: DRILLS[name].costs for name in names}, yes=options.yes):
        return 2
    results = [run(name, stack) for name in names]
    print(table(results))
    if options.report:
        options.report.write_text(markdown(results))
    return 1 if any(result.verdict == "FAILED" for result in results) else 0


def read_options() -> argparse.Namespace:
    """Parse the command line; exit with one line when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="drill", description="Break the running stack on purpose, and see whether it tells and comes back."
    )
    parser.add_argument("names", nargs="+", metavar="DRILL", help="names, or all, list")
    parser.add_argument("-p", "--project", help="Compose project name; default: this folder's")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the table as Markdown too")
    options = parser.parse_args()
    special = {"all", "list"} & set(options.names)
    if special and len(options.names) > 1:
        parser.error(f"{special.pop()} stands alone")
    if unknown := [name for name in options.names if name not in DRILLS and not special]:
        parser.error(f"no drill is called {unknown[0]}: `list` shows them")
    return options


def check_ready(stack: RunningStack) -> bool:
    """Return True when the stack is healthy, so that a failure is the drill's doing. Raises StackError."""
    for service in NEEDS:
        state = stack.state(service)
        if state["Status"] != "running" or state.get("Health", {}).get("Status", "healthy") != "healthy":
            raise StackError(f"{service} is not healthy: docker compose -p {stack.project} up -d --wait")
    return True


def agreed(stack: RunningStack, costs: dict[str, str], *, yes: bool) -> bool:
    """Ask for consent; return whether it was given."""
    if yes:
        return True
    print(f"This breaks the running stack {stack.project} on purpose:")
    for name, text in costs.items():
        print(f"  {name:<27} {text}")
    try:
        answer = input("Go on? [y/N] ")
    except EOFError:
        print("drill: nobody to ask; --yes goes on without", file=sys.stderr)
        return False
    return answer.strip().lower() in {"y", "yes"}


def run(name: str, stack: RunningStack) -> DrillResult:
    """Run one drill; every failure becomes part of its result."""
    result = DrillResult(name)
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{name}: {time.monotonic() - begun:6.1f} s  {text}", flush=True)

    say(DRILLS[name].what)
    try:
        scene = Scene(stack, result, say)
        # Docker's health checks report the last drill's recovery a little late.
        scene.wait("the stack is well", lambda: check_ready(stack), READY_S)
        DRILLS[name].run(scene)
    except Skip as reason:
        result.verdict, result.error = "skipped", str(reason)
    except (DrillError, StackError, requests.RequestException, docker.errors.DockerException) as error:
        result.verdict, result.error = "FAILED", " ".join(str(error).split())[:400]
    result.took_s = time.monotonic() - begun
    say(f"{result.verdict} {result.error}".strip())
    return result
