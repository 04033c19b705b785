"""From nothing to a chat answer with one command, again in seconds, and beside a second copy."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING
from urllib.error import HTTPError

import docker

from tests.rig.running_stack import http

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.rig.running_stack import Stack


def test_every_service_is_healthy_and_the_model_step_has_ended_well(stack: Stack) -> None:
    rows = [json.loads(line) for line in stack.compose("ps", "--all", "--format", "json").stdout.splitlines()]
    states = {row["Service"]: (row["State"], row["Health"], row["ExitCode"]) for row in rows}
    assert states.pop("model") == ("exited", "", 0)
    assert states.pop("locust-worker") == ("running", "", 0)
    assert states.keys() == {"hub", "vllm", "prometheus", "locust"}
    assert set(states.values()) == {("running", "healthy", 0)}


def test_first_start_downloads_and_verifies_the_model_with_progress(stack: Stack) -> None:
    log = stack.logs("model")
    assert "100.0 %" in log
    assert "READY" in log


def test_a_second_up_changes_nothing_and_takes_seconds(stack: Stack) -> None:
    engine = stack.container("vllm").id
    model_s = []
    for _ in range(3):  # one may be slow, as the machine is busy
        start = time.monotonic()
        stack.compose("up", "-d", "--wait")
        assert time.monotonic() - start < 60
        assert stack.container("vllm").id == engine
        model_s.append(stack.seconds_run("model"))
    assert min(model_s) < 2, model_s


def test_a_restart_needs_no_hub(stack: Stack) -> None:
    stack.compose("stop", "hub")
    done = stack.compose("run", "--rm", "--no-deps", "model", check=False)
    stack.compose("start", "hub")
    assert done.returncode == 0, done.stdout + done.stderr


def assert_closed_without_the_key(stack: Stack) -> None:
    """The API asks for the key, what is no API is not there, and health and metrics need none."""

    def status(path: str) -> int:
        try:
            http(stack.url("VLLM_PORT") + path, None if path.startswith("/v1/models") else {"model": "m", "prompt": ""})
        except HTTPError as error:
            return error.code
        return 200

    for path in ("/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize"):
        assert status(path) == 401, path
    for path in ("/invocations", "/scale_elastic_ep", "/generative_scoring", "/inference/v1/generate", "/sleep"):
        assert status(path) == 404, path
    for path in ("/health", "/metrics"):
        assert http(stack.url("VLLM_PORT") + path) is not None


def test_a_second_clone_runs_beside_the_first_and_leaves_nothing(
    stack: Stack, new_stack: Callable[..., Stack], copy_of_checkout: Path
) -> None:
    key = copy_of_checkout.parent / "api-key"
    key.write_text("a-key-of-its-own\n")
    key.chmod(0o644)  # the containers' users are not this one
    second = new_stack("second", copy_of_checkout, VLLM_API_KEY_FILE=str(key))
    second.compose("up", "-d", "--build", "--wait")
    assert second.ports != stack.ports
    assert "8 of 8 checks passed" in second.compose("run", "--rm", "smoke").stdout
    assert "Paris" in stack.chat("What is the capital of France?")
    assert_closed_without_the_key(second)
    assert "a-key-of-its-own" not in str([second.container(name).attrs for name in ("vllm", "locust")])
    second.down()
    engine = docker.from_env()
    mine: dict[str, str | list[str] | bool] = {"label": f"com.docker.compose.project={second.project}"}
    assert not engine.containers.list(all=True, filters=mine)
    assert not engine.volumes.list(filters=mine)
    assert not engine.networks.list(filters=mine)
    assert http(stack.url("VLLM_PORT") + "/health") == b""
