"""From nothing to a chat answer with one command, and again in seconds. A second copy: tests/scale."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.rig.running_stack import Stack


def test_every_service_is_healthy_after_up(stack: Stack) -> None:
    rows = [json.loads(line) for line in stack.compose("ps", "--all", "--format", "json").stdout.splitlines()]
    states = {row["Service"]: (row["State"], row["Health"], row["ExitCode"]) for row in rows}
    assert states.pop("model") == ("exited", "", 0)
    assert states.pop("locust-worker") == ("running", "", 0)
    assert states.keys() == {"hub", "vllm", "prometheus", "locust"}
    assert set(states.values()) == {("running", "healthy", 0)}


def test_first_start_downloads_the_model(stack: Stack) -> None:
    log = stack.logs("model")
    assert "100.0 %" in log
    assert "READY" in log


def test_second_up_changes_nothing(stack: Stack) -> None:
    engine = stack.container("vllm").id
    model_s = []
    for _ in range(3):  # one may be slow, as the machine is busy
        start = time.monotonic()
        stack.compose("up", "-d", "--wait")
        assert time.monotonic() - start < 60
        assert stack.container("vllm").id == engine
        model_s.append(stack.seconds_run("model"))
    assert min(model_s) < 2, model_s


def test_model_step_needs_no_hub_again(stack: Stack) -> None:
    stack.compose("stop", "hub")
    done = stack.compose("run", "--rm", "--no-deps", "model", check=False)
    stack.compose("start", "hub")
    assert done.returncode == 0, done.stdout + done.stderr
