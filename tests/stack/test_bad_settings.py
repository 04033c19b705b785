"""A setting that cannot work ends with a line that names it, where a person looks, and without endless restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.edge_door import EDGE, take_away
from tests.rig.running_stack import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rig.running_stack import Stack


@pytest.fixture(scope="module")
def broken(new_stack: Callable[..., Stack]) -> Stack:
    """A stack of its own whose model is on the volume and whose engine is not started yet."""
    stack = new_stack("bad")
    stack.compose("up", "-d", "--build", "--wait", "hub")
    stack.compose("up", "model")
    return stack


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"MODEL_SOURCE": "torrent"}, ["MODEL_SOURCE", "torrent", "modelscope"]),
        ({"MODEL_ID": "HuggingFaceTB/NoSuchModel"}, ["MODEL_ID", "HuggingFaceTB/NoSuchModel"]),
        ({"MODEL_ID": "not-an-id"}, ["MODEL_ID", "not-an-id"]),
        ({"MODEL_REVISION": "no-such-branch"}, ["MODEL_REVISION", "no-such-branch"]),
        ({"BIND_ADDRESS": "0.0.0.0"}, ["BIND_ADDRESS", "0.0.0.0", "VLLM_API_KEY is empty"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_model_step_names_the_setting_and_the_engine_never_starts(
    broken: Stack, env: dict[str, str], said: list[str]
) -> None:
    done = broken.compose("up", "-d", "--wait", "vllm", check=False, **env)
    assert done.returncode != 0
    assert "model" in done.stderr
    last = broken.logs("model").strip().splitlines()[-1]
    for part in said:
        assert part in last
    assert broken.container("vllm").status == "created"


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"DTYPE": "int4"}, ["DTYPE=int4"]),
        ({"CHAT_TEMPLATE": "nope.jinja"}, ["CHAT_TEMPLATE=nope.jinja", "docker/vllm/chat-templates"]),
        ({"CPU_KV_CACHE_GIB": "4000"}, ["CPU_KV_CACHE_GIB", "GiB is free"]),
        ({"VLLM_EXTRA_ARGS": "--no-such-flag"}, ["VLLM_EXTRA_ARGS", "--no-such-flag"]),
        ({"MAX_MODEL_LEN": "100000"}, ["MAX_MODEL_LEN=100000", "MAX_MODEL_LEN=8192 or less"]),
        ({"MAX_MODEL_LEN": "8192", "CPU_KV_CACHE_GIB": "0.1"}, ["MAX_MODEL_LEN=8192", "CPU_KV_CACHE_GIB"]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_engine_names_the_setting_and_up_fails(broken: Stack, env: dict[str, str], said: list[str]) -> None:
    done = broken.compose("up", "-d", "--wait", "vllm", check=False, **env)
    assert done.returncode != 0
    assert "vllm" in done.stderr
    lines = [line for line in broken.logs("vllm").splitlines() if "headroom: " in line and "vllm serve /" not in line]
    for part in said:
        assert part in lines[-1]
    broken.compose("stop", "--timeout", "1", "vllm")


def test_the_edge_does_not_open_without_a_key(broken: Stack) -> None:
    done = broken.compose(*EDGE, "up", "-d", "--wait", "vllm", check=False)
    assert done.returncode != 0
    assert "VLLM_API_KEY is empty" in broken.logs("model").strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "EDGE_DOMAIN is empty"),
        ({"EDGE_DOMAIN": "https://a.test"}, "EDGE_DOMAIN=https://a.test is no host name"),
        ({"EDGE_DOMAIN": "a.test", "EDGE_PASSWORD": "short"}, "EDGE_PASSWORD has 5 characters, 12 or more are needed"),
    ],
    ids=["domain", "address", "password"],
)
def test_the_edge_names_the_setting(broken: Stack, env: dict[str, str], said: str) -> None:
    settings: dict[str, Any] = {"EDGE_PORT": str(broken.ports["GRAFANA_PORT"]), **env}
    broken.compose(*EDGE, "up", "-d", "--build", "--no-deps", "edge", check=False, **settings)
    wait_for("the edge gives up", lambda: broken.container("edge").attrs["RestartCount"] > 0 or None, timeout_s=30)
    assert said in broken.compose(*EDGE, "logs", "--no-log-prefix", "edge").stdout.strip().splitlines()[-1]
    take_away(broken)


def test_restarts_end_after_five(broken: Stack) -> None:
    broken.compose("up", "-d", "--wait", "vllm", check=False, DTYPE="int4")

    def state() -> tuple[str, int]:
        container = broken.container("vllm")
        return container.status, container.attrs["RestartCount"]

    wait_for("the engine gives up", lambda: state() == ("exited", 5), timeout_s=60)


def test_a_port_in_use_is_named(broken: Stack, stack: Stack) -> None:
    taken = str(stack.ports["PROMETHEUS_PORT"])
    done = broken.compose("up", "-d", "prometheus", check=False, PROMETHEUS_PORT=taken)
    assert done.returncode != 0
    assert taken in done.stderr
