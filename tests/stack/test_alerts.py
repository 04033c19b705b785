"""The real engine stopped, frozen and overloaded, a download broken off: alerts fire in time, and resolve."""

from __future__ import annotations

import json
import os
import signal
import time
from http.client import HTTPConnection
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import docker
import pytest

from tests.rig.delivery_rig import Hub
from tests.rig.running_stack import http, wait_for
from tests.rig.traffic import OVERLOAD_ALERTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.running_stack import Stack
    from tests.rig.traffic import Run

# The first test of each kind makes the traffic that the others look at.
pytestmark = pytest.mark.timeout(1200)

SCRAPE_S = EVALUATION_S = 5
TIMEOUT_S = 4


class Timeline(NamedTuple):
    """When an alert first fired, since when it had then been pending, and when it last fired: seconds since 1970."""

    pending: float
    firing: float
    last: float


def timeline(stack: Stack, alert: str, since: float) -> Timeline:
    """What Prometheus recorded of the alert after `since`; of its first series when it has several."""
    window = f"[{round(time.time() - since) + 1}s]"
    result = stack.query(f'ALERTS{{alertname="{alert}"}}{window}')
    times = {
        state: [at for series in result if series["metric"]["alertstate"] == state for at, _ in series["values"]]
        for state in ("pending", "firing")
    }
    assert times["firing"], result
    firing = min(times["firing"])
    # It may have been pending before, for too short a time. This one's begin is known to the second, rounded down.
    told = stack.query(f'ALERTS_FOR_STATE{{alertname="{alert}"}}{window}')
    active = min(float(value) for series in told for at, value in series["values"] if at == firing)
    return Timeline(min(at for at in times["pending"] if at >= active), firing, max(times["firing"]))


def rule(stack: Stack, alert: str) -> dict[str, Any]:
    """The alert's rule as Prometheus has it."""
    groups = stack.prometheus("rules", type="alert")["groups"]
    found: dict[str, Any] = next(rule for group in groups for rule in group["rules"] if rule["name"] == alert)
    return found


def check(stack: Stack, alert: str, cause: float, window_s: float) -> Timeline:
    """The alert fired within its `for` and one evaluation after its condition, and that within `window_s` of the cause.

    Whatever happens is seen at the next scrape, and read at the evaluation after it.
    """
    seen = timeline(stack, alert, cause)
    assert seen.pending - cause <= window_s + SCRAPE_S + TIMEOUT_S + EVALUATION_S
    # Evaluations are 5 s apart to the millisecond.
    assert seen.firing - seen.pending <= rule(stack, alert)["duration"] + EVALUATION_S + 0.1
    return seen


@pytest.mark.parametrize("alert", OVERLOAD_ALERTS)
def test_an_overloaded_engine_is_told_of_and_the_end_of_it_too(overload: Run, alert: str) -> None:
    # How soon the KV cache is full is the machine's business: the cause is the first request that Prometheus saw wait
    # of those after which the queue was never empty.
    pending = timeline(overload.stack, alert, overload.started).pending
    seconds = round(time.time() - overload.started) + 1
    [waiting] = overload.stack.query(f'vllm:num_requests_waiting{{job="vllm"}}[{seconds}s]')
    before = [(at, float(value)) for at, value in waiting["values"] if at <= pending]
    cause = [at for at, _ in takewhile(lambda sample: sample[1] > 0, reversed(before))][-1]
    # The slope of the queue over 5 minutes needs some samples to be above 1 a minute.
    seen = check(overload.stack, alert, cause, window_s=20 if alert == "QueueGrowing" else 0)
    assert seen.last - overload.ended <= SCRAPE_S + TIMEOUT_S + EVALUATION_S
    assert not overload.stack.firing(alert)


def test_what_load_explains_is_marked_and_a_running_test_is_announced(overload: Run) -> None:
    at = f"[{round(time.time() - overload.started) + 1}s]"
    fired = overload.stack.query(
        f'max by (alertname, cause, severity) (max_over_time(ALERTS{{alertstate="firing"}}{at}))'
    )
    labels = {series["metric"]["alertname"]: series["metric"] for series in fired}
    assert labels["LoadTestRunning"]["severity"] == "info"
    assert all(labels[alert]["cause"] == "load" for alert in OVERLOAD_ALERTS)


def freeze(stack: Stack) -> int:
    """Stop the engine's process, as a hung GPU would; its id."""
    top = stack.container("vllm").top(ps_args="-eo pid,args")
    [pid] = [int(row[0]) for row in top["Processes"] if "EngineCore" in " ".join(row[1:])]
    os.kill(pid, signal.SIGSTOP)
    return pid


def ask(stack: Stack, model: str) -> HTTPConnection:
    """Ask for a long stream, and do not wait for it."""
    body = {"model": model, "prompt": "Count.", "max_tokens": 1800, "ignore_eos": True, "stream": True}
    client = HTTPConnection("127.0.0.1", stack.ports["VLLM_PORT"], timeout=60)
    client.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    return client


@pytest.fixture(params=["busy", "idle"])
def frozen(stack: Stack, request: pytest.FixtureRequest) -> Iterator[float]:
    """The engine stopped in the middle of a stream, or before one: since when it has had something to do."""
    [model] = json.loads(http(f"{stack.api}/models"))["data"]
    running = 'sum(vllm:num_requests_running{job="vllm"})'
    wait_for("an idle engine", lambda: stack.value(running) == 0, timeout_s=60)
    assert not stack.firing("EngineStalled")
    if request.param == "busy":
        client = ask(stack, model["id"])
        assert client.getresponse().read(1)
        wait_for("Prometheus sees the request", lambda: stack.value(running) > 0, timeout_s=30)
        pid = freeze(stack)
    else:
        pid = freeze(stack)
        client = ask(stack, model["id"])
    try:
        yield time.time()
    finally:
        os.kill(pid, signal.SIGCONT)
        client.close()  # the engine gives the request up
    wait_for("EngineStalled is resolved", lambda: not stack.firing("EngineStalled"), timeout_s=60)


def test_a_frozen_engine_is_told_of_though_its_health_check_is_fine(stack: Stack, frozen: float) -> None:
    wait_for("EngineStalled fires", lambda: stack.firing("EngineStalled"), timeout_s=180)
    assert http(stack.url("VLLM_PORT") + "/health") == b""  # it lies: this is why the alert is there
    check(stack, "EngineStalled", frozen, window_s=60)


def test_a_thawed_engine_is_well_again(stack: Stack) -> None:
    assert "Paris" in stack.chat("What is the capital of France?")


def test_a_download_that_breaks_off_is_told_of(stack: Stack) -> None:
    # A hub whose weights trickle, and a volume of this try alone, so that there is something to fetch.
    name = stack.compose("run", "--detach", "--no-deps", "--env", "HUB_FAULTS=1", "hub").stdout.strip()
    hub = Hub(docker.from_env().containers.get(name), f"{stack.project}_default")
    try:
        wait_for("the hub answers", lambda: hub.faults_left() == [], timeout_s=30)
        hub.order({"match": "GET .*safetensors", "bytes_per_s": 1000, "times": 99})
        settings = {"MODELSCOPE_ENDPOINT": f"http://{hub.ip}:8080", "MODEL_STALL_TIMEOUT_S": "15"}
        environment = [option for name, value in settings.items() for option in ("--env", f"{name}={value}")]
        run = ["run", "--rm", "--no-deps", "--use-aliases", "--volume", "/models", *environment, "model"]
        done = stack.compose(*run, check=False)
    finally:
        hub.container.remove(force=True, v=True)
    assert done.returncode == 1
    assert "MODEL_STALL_TIMEOUT_S" in done.stderr
    wait_for("ModelDownloadFailed fires", lambda: stack.firing("ModelDownloadFailed"), timeout_s=30)
    # The download has ended, and leaves no target that is down.
    wait_for("its target is gone", lambda: not stack.query('up{job="model"}'), timeout_s=30)


@pytest.fixture
def stopped(stack: Stack) -> Iterator[float]:
    """The engine stopped; since when. It is up again afterwards."""
    since = time.time()
    stack.compose("stop", "vllm")
    yield since
    stack.compose("up", "-d", "--wait", "vllm")
    wait_for("EngineDown is resolved", lambda: not stack.firing("EngineDown"), timeout_s=60)
    # A start of the engine ends the worry about a download that failed before.
    wait_for("ModelDownloadFailed is resolved", lambda: not stack.firing("ModelDownloadFailed"), timeout_s=60)


def test_a_stopped_engine_is_told_of(stack: Stack, stopped: float) -> None:
    wait_for("EngineDown fires", lambda: stack.firing("EngineDown"), timeout_s=180)
    # The engine lets streams end first: none was there, it stops in seconds.
    check(stack, "EngineDown", stopped, window_s=20)
