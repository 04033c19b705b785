"""A setting that cannot work ends with a line that names it, where a person looks, and without endless restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from running_stack import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from running_stack import Stack


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
