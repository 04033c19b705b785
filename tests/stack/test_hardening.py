"""The promises of the Compose files (tests/compose) hold in the running containers."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import docker
import pytest

if TYPE_CHECKING:
    from tests.rig.running_stack import Stack

SERVICES = ["hub", "locust", "locust-worker", "prometheus", "vllm"]


@pytest.mark.parametrize("service", SERVICES)
def test_process_has_no_rights(stack: Stack, service: str) -> None:
    container = stack.container(service)
    status = container.exec_run(["cat", "/proc/1/status"]).output
    assert isinstance(status, bytes)
    fields = dict(line.split(":", 1) for line in status.decode().splitlines())
    assert "0" not in fields["Uid"].split()
    assert int(fields["CapEff"], 16) == 0
    assert int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    written = container.exec_run(["touch", "/written"])
    assert written.exit_code != 0
    assert b"Read-only file system" in written.output


def test_engine_cannot_write_the_model(stack: Stack) -> None:
    written = stack.container("vllm").exec_run(["touch", "/models/written"])
    assert b"Read-only file system" in written.output


def test_engine_can_write_its_compile_cache(stack: Stack) -> None:
    written = stack.container("vllm").exec_run(["sh", "-c", "mkdir -p /cache/vllm/t && rmdir /cache/vllm/t"])
    assert written.exit_code == 0, written.output


def test_published_ports_answer_on_loopback_only(stack: Stack) -> None:
    published = [
        binding["HostIp"]
        for container in docker.from_env().containers.list(
            filters={"label": f"com.docker.compose.project={stack.project}"}
        )
        for bindings in container.ports.values()
        for binding in bindings or []
    ]
    assert published
    assert set(published) == {"127.0.0.1"}
    others = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)} - {"127.0.0.1", "::1"}
    for address in others:
        with pytest.raises(OSError, match=r"refused|timed out"):
            socket.create_connection((address, stack.ports["VLLM_PORT"]), timeout=2)
