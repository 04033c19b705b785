"""A setting that cannot work ends with a line that names it, and without endless restarts.

Unit tests hold each setting's message (tests/unit/model, tests/unit/vllm); these show where it appears.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.edge_door import EDGE, take_away
from tests.rig.running_stack import wait_for

if TYPE_CHECKING:
    from tests.rig.running_stack import Stack


def last_line(stack: Stack) -> str:
    """Last line of the engine's log that the project wrote, its command line left out."""
    lines = stack.logs("vllm").splitlines()
    return [line for line in lines if "headroom: " in line and "vllm serve /" not in line][-1]


def test_bad_model_id_keeps_engine_from_starting(downloaded: Stack) -> None:
    done = downloaded.compose("up", "-d", "--wait", "vllm", check=False, MODEL_ID="HuggingFaceTB/NoSuchModel")
    assert done.returncode != 0
    assert "model" in done.stderr
    last = downloaded.logs("model").strip().splitlines()[-1]
    assert "MODEL_ID" in last
    assert "HuggingFaceTB/NoSuchModel" in last
    assert downloaded.container("vllm").status == "created"


def test_bad_engine_setting_ends_after_five_restarts(downloaded: Stack) -> None:
    done = downloaded.compose("up", "-d", "--wait", "vllm", check=False, DTYPE="int4")
    assert done.returncode != 0
    assert "vllm" in done.stderr
    assert "DTYPE=int4" in last_line(downloaded)

    def state() -> tuple[str, int]:
        container = downloaded.container("vllm")
        return container.status, container.attrs["RestartCount"]

    wait_for("the engine gives up", lambda: state() == ("exited", 5), timeout_s=60)


# Engine starts: one, as far as vLLM's check of its KV cache, which only a loading engine makes.
def test_error_of_vllm_names_the_setting(downloaded: Stack) -> None:
    env = {"MAX_MODEL_LEN": "8192", "CPU_KV_CACHE_GIB": "0.1"}
    done = downloaded.compose("up", "-d", "--wait", "vllm", check=False, **env)
    assert done.returncode != 0
    assert "vllm" in done.stderr
    last = last_line(downloaded)
    assert "MAX_MODEL_LEN=8192" in last
    assert "CPU_KV_CACHE_GIB" in last
    downloaded.compose("stop", "--timeout", "1", "vllm")


def test_edge_needs_an_api_key(downloaded: Stack) -> None:
    done = downloaded.compose(*EDGE, "up", "-d", "--wait", "vllm", check=False)
    assert done.returncode != 0
    assert "VLLM_API_KEY is empty" in downloaded.logs("model").strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "EDGE_DOMAIN is empty"),
        ({"EDGE_DOMAIN": "https://a.test"}, "EDGE_DOMAIN=https://a.test is no host name"),
        ({"EDGE_DOMAIN": "a.test", "EDGE_PASSWORD": "short"}, "EDGE_PASSWORD has 5 characters, 12 or more are needed"),
    ],
    ids=["domain", "address", "password"],
)
def test_edge_names_the_bad_setting(downloaded: Stack, env: dict[str, str], words: str) -> None:
    settings: dict[str, Any] = {"EDGE_PORT": str(downloaded.ports["GRAFANA_PORT"]), **env}
    downloaded.compose(*EDGE, "up", "-d", "--build", "--no-deps", "edge", check=False, **settings)
    wait_for("the edge gives up", lambda: downloaded.container("edge").attrs["RestartCount"] > 0 or None, timeout_s=30)
    assert words in downloaded.compose(*EDGE, "logs", "--no-log-prefix", "edge").stdout.strip().splitlines()[-1]
    take_away(downloaded)


def test_port_in_use_is_named(downloaded: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = downloaded.compose("up", "-d", "prometheus", check=False, PROMETHEUS_PORT=port)
    assert done.returncode != 0
    assert port in done.stderr
