"""The real engine overloaded, killed and frozen, a download broken off: alerts fire in time and resolve.

The drills of scripts/drill stage the outages and assert what users see, how the stack comes back, and what is lost.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import docker
import pytest

from tests.rig.delivery_rig import Hub
from tests.rig.running_stack import ROOT, wait_for
from tests.rig.traffic import OVERLOAD_ALERTS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.running_stack import Stack
    from tests.rig.traffic import Run

pytestmark = pytest.mark.timeout(1200)

SCRAPE_S = EVALUATION_S = 5
TIMEOUT_S = 4
# Engine starts: one each for engine-killed and engine-frozen.
DRILLS = ("engine-killed", "engine-frozen")


class Timeline(NamedTuple):
    """Unix times of an alert: first firing, pending before that, last firing."""

    pending: float
    firing: float
    last: float


def timeline(stack: Stack, alert: str, since: float) -> Timeline:
    """Return what Prometheus recorded of the alert after `since`; of its first series where it has several."""
    window = f"[{round(time.time() - since) + 1}s]"
    result = stack.query(f'ALERTS{{alertname="{alert}"}}{window}')
    times = {
        state: [at for series in result if series["metric"]["alertstate"] == state for at, _ in series["values"]]
        for state in ("pending", "firing")
    }
    assert times["firing"], result
    firing = min(times["firing"])
    # It may have been pending before, for too short a time. The begin of this one is known to the second, rounded down.
    starts = stack.query(f'ALERTS_FOR_STATE{{alertname="{alert}"}}{window}')
    active = min(float(value) for series in starts for at, value in series["values"] if at == firing)
    return Timeline(min(at for at in times["pending"] if at >= active), firing, max(times["firing"]))


def rule(stack: Stack, alert: str) -> dict[str, Any]:
    """The alert's rule as Prometheus has it."""
    groups = stack.prometheus("rules", type="alert")["groups"]
    found: dict[str, Any] = next(rule for group in groups for rule in group["rules"] if rule["name"] == alert)
    return found


def check(stack: Stack, alert: str, cause: float, window_s: float) -> Timeline:
    """Assert that the alert's condition held `window_s` after the cause, and that it fired within its `for`.

    A change is seen at the next scrape, and read at the evaluation after it.
    """
    seen = timeline(stack, alert, cause)
    assert seen.pending - cause <= window_s + SCRAPE_S + TIMEOUT_S + EVALUATION_S
    # Evaluations are 5 s apart to the millisecond.
    assert seen.firing - seen.pending <= rule(stack, alert)["duration"] + EVALUATION_S + 0.1
    return seen


@pytest.mark.parametrize("alert", OVERLOAD_ALERTS)
def test_overload_alerts_fire_and_resolve(overload: Run, alert: str) -> None:
    # How soon the KV cache is full depends on the machine: the cause is the first request that Prometheus saw wait, of
    # those after which the queue was never empty.
    pending = timeline(overload.stack, alert, overload.started).pending
    seconds = round(time.time() - overload.started) + 1
    [waiting] = overload.stack.query(f'vllm:num_requests_waiting{{job="vllm"}}[{seconds}s]')
    before = [(at, float(value)) for at, value in waiting["values"] if at <= pending]
    cause = [at for at, _ in takewhile(lambda sample: sample[1] > 0, reversed(before))][-1]
    # The slope of the queue over 5 minutes needs some samples to be above 1 a minute.
    seen = check(overload.stack, alert, cause, window_s=20 if alert == "QueueGrowing" else 0)
    assert seen.last - overload.ended <= SCRAPE_S + TIMEOUT_S + EVALUATION_S
    assert not overload.stack.firing(alert)


def test_load_test_marks_its_alerts(overload: Run) -> None:
    at = f"[{round(time.time() - overload.started) + 1}s]"
    fired = overload.stack.query(
        f'max by (alertname, cause, severity) (max_over_time(ALERTS{{alertstate="firing"}}{at}))'
    )
    labels = {series["metric"]["alertname"]: series["metric"] for series in fired}
    assert labels["LoadTestRunning"]["severity"] == "info"
    assert all(labels[alert]["cause"] == "load" for alert in OVERLOAD_ALERTS)


@pytest.fixture(scope="module")
def failed_download(stack: Stack) -> subprocess.CompletedProcess[str]:
    """A model container whose download broke off."""
    # A hub whose weights trickle, and a volume of this try alone, so that there is something to fetch.
    name = stack.compose("run", "--detach", "--no-deps", "--env", "HUB_FAULTS=1", "hub").stdout.strip()
    hub = Hub(docker.from_env().containers.get(name), f"{stack.project}_default")
    try:
        wait_for("the hub answers", lambda: hub.faults_left() == [], timeout_s=30)
        hub.order({"match": "GET .*safetensors", "bytes_per_s": 1000, "times": 99})
        settings = {"MODELSCOPE_ENDPOINT": f"http://{hub.ip}:8080", "MODEL_STALL_TIMEOUT_S": "15"}
        environment = [option for name, value in settings.items() for option in ("--env", f"{name}={value}")]
        run = ["run", "--rm", "--no-deps", "--use-aliases", "--volume", "/models", *environment, "model"]
        return stack.compose(*run, check=False)
    finally:
        hub.container.remove(force=True, v=True)


def test_broken_download_fires_its_alert(stack: Stack, failed_download: subprocess.CompletedProcess[str]) -> None:
    assert failed_download.returncode == 1
    assert "MODEL_STALL_TIMEOUT_S" in failed_download.stderr
    wait_for("ModelDownloadFailed fires", lambda: stack.firing("ModelDownloadFailed"), timeout_s=30)
    # The download has ended, and leaves no target that is down.
    wait_for("its target is gone", lambda: not stack.query('up{job="model"}'), timeout_s=30)


@dataclass
class Drilled:
    """Drills that have ended: exit code, their output with the Unix time of each line, and their report."""

    code: int = -1
    lines: list[tuple[float, str]] = field(default_factory=list)
    report: str = ""

    @property
    def output(self) -> str:
        return "".join(line for _, line in self.lines)

    def time_of(self, pattern: str) -> float:
        """Unix time of the first line that has the pattern."""
        return next(at for at, line in self.lines if re.search(pattern, line))


def drill(stack: Stack, *arguments: str) -> Drilled:
    """Run scripts/drill as a person does."""
    drilled = Drilled()
    command = [sys.executable, "scripts/drill", *arguments, "--project", stack.project]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            drilled.lines.append((time.time(), line))
    drilled.code = process.returncode
    return drilled


@pytest.fixture(scope="module")
def drilled(
    stack: Stack, failed_download: subprocess.CompletedProcess[str], tmp_path_factory: pytest.TempPathFactory
) -> Drilled:
    """The drills on the engine that need no more than minutes; docs/drills.md has all."""
    assert failed_download  # before them: an engine's start ends its alert
    report: Path = tmp_path_factory.mktemp("drills") / "drills.md"
    drilled = drill(stack, *DRILLS, "--yes", "--report", str(report))
    drilled.report = report.read_text() if report.exists() else ""
    return drilled


def test_drills_pass(drilled: Drilled) -> None:
    assert drilled.code == 0, drilled.output
    assert drilled.report.count("| passed |") == len(DRILLS)
    assert "EngineRestarted" in drilled.report


def test_killed_engine_fires_engine_down(stack: Stack, drilled: Drilled) -> None:
    check(stack, "EngineDown", drilled.time_of("processes of the engine killed"), window_s=0)


def test_busy_frozen_engine_fires_stalled(stack: Stack, drilled: Drilled) -> None:
    # The drill has asserted that /health answered meanwhile.
    check(stack, "EngineStalled", drilled.time_of("the engine is frozen"), window_s=60)


@pytest.mark.parametrize("alert", ["EngineDown", "EngineStalled", "ModelDownloadFailed"])
def test_engine_start_resolves_alerts(stack: Stack, drilled: Drilled, alert: str) -> None:
    assert drilled.lines
    wait_for(f"{alert} is resolved", lambda: not stack.firing(alert), timeout_s=60)


def healthy(stack: Stack) -> bool:
    health: str = stack.container("vllm").attrs["State"]["Health"]["Status"]
    return health == "healthy"


def test_drill_skips_absent_service(stack: Stack) -> None:
    wait_for("the engine is healthy again", lambda: healthy(stack), timeout_s=240)
    drilled = drill(stack, "grafana-killed", "--yes")
    assert drilled.code == 0
    assert "this stack has no Grafana" in drilled.output


def test_drill_breaks_nothing_without_a_yes(stack: Stack) -> None:
    before = stack.container("vllm").attrs["State"]["StartedAt"]
    drilled = drill(stack, "machine-restart")
    assert drilled.code == 2
    assert "everything is away" in drilled.output
    assert stack.container("vllm").attrs["State"]["StartedAt"] == before


def test_drill_names_absent_stack(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/drill", "engine-killed", "--project", "no-such-stack"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no stack is called no-such-stack" in done.stderr
    assert stack.project in done.stderr
