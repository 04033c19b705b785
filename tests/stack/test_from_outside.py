"""A second network namespace, in the place of a machine beside this box, tries every port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import docker
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.running_stack import Stack

# TEST-NET-2 (RFC 5737): nobody's.
BOX, NEIGHBOUR = "198.51.100.1", "198.51.100.2"
KNOCK = """
import socket, sys
for place in sys.argv[1:]:
    host, port = place.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        print(place)
    except OSError:
        pass
"""


def ip(*args: str) -> str:
    return subprocess.run(["ip", *args], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def neighbour() -> Iterator[str]:
    """The name of a namespace that reaches this box at BOX, and nothing else."""
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    name = f"neighbour-{os.getpid()}"
    ip("netns", "add", name)
    try:
        ip("link", "add", f"nb{os.getpid()}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("address", "add", f"{BOX}/30", "dev", f"nb{os.getpid()}")
        ip("link", "set", f"nb{os.getpid()}", "up")
        ip("-n", name, "address", "add", f"{NEIGHBOUR}/30", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "route", "add", "default", "via", BOX)
        yield name
    finally:
        ip("netns", "delete", name)  # the pair goes with it


def open_to(neighbour: str, places: list[str]) -> list[str]:
    """Those of the places, host:port, that take a connection from the neighbour."""
    done = subprocess.run(
        ["ip", "netns", "exec", neighbour, sys.executable, "-c", KNOCK, *places],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_probe_reaches_an_open_port(neighbour: str) -> None:
    with socket.create_server((BOX, 0)) as server:
        place = f"{BOX}:{server.getsockname()[1]}"
        assert open_to(neighbour, [place, f"{BOX}:1"]) == [place]


def test_nothing_answers_by_default(neighbour: str, stack: Stack) -> None:
    assert open_to(neighbour, [f"{BOX}:{port}" for port in stack.ports.values()]) == []


def test_containers_are_unreachable(neighbour: str, stack: Stack) -> None:
    engine = docker.from_env()
    if int(engine.version()["Version"].split(".")[0]) < 28:
        pytest.skip(
            "Docker Engine before 28 routes the local network to containers: docs/security.md, the doctor warns"
        )
    addresses = [
        network["IPAddress"]
        for container in engine.containers.list(filters={"label": f"com.docker.compose.project={stack.project}"})
        for network in container.attrs["NetworkSettings"]["Networks"].values()
    ]
    assert open_to(neighbour, [f"{address}:{port}" for address in addresses for port in (8000, 9090, 8089)]) == []
