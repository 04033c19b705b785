"""Checks of Docker and Compose: present and recent enough."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from compose_project import DockerError, docker
from doctor_checks.check_result import CheckResult, fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

# Compose: the first that reads `!override` in a list of a layer (compose.edge.yaml).
MIN_ENGINE, MIN_COMPOSE = (25,), (2, 24, 4)
# Older engines let the local network bypass a port bound to 127.0.0.1.
CLOSED_ENGINE = (28,)


def version_of(text: str) -> tuple[int, ...]:
    """Numbers of a version such as v2.26.1-4, here (2, 26, 1); empty for none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def check_versions() -> Iterator[CheckResult]:
    """Check the versions of Docker Engine and Compose."""
    needed = f"{MIN_ENGINE[0]} or newer"
    try:
        engine = docker("version", "--format", "{{.Server.Version}}").strip()
    except DockerError as error:
        yield fail("Docker Engine", str(error), needed, "install and start it; add yourself to the group docker")
        return
    if version_of(engine) < MIN_ENGINE:
        yield fail("Docker Engine", engine, needed, "upgrade Docker")
    elif version_of(engine) < CLOSED_ENGINE:
        yield warn(
            "Docker Engine",
            engine,
            f"{needed}; {CLOSED_ENGINE[0]} on a shared network",
            "upgrade Docker: before 28, neighbours on your network can reach containers past 127.0.0.1 "
            "(docs/security.md)",
        )
    else:
        yield ok("Docker Engine", engine, needed)
    needed = f"{'.'.join(map(str, MIN_COMPOSE))} or newer"
    try:
        compose = docker("compose", "version", "--short").strip()
    except DockerError:
        yield fail("Docker Compose", "not there", needed, "install docker-compose-plugin (Debian: docker-compose)")
        return
    if version_of(compose) < MIN_COMPOSE:
        yield fail("Docker Compose", compose, needed, "upgrade Docker Compose")
    else:
        yield ok("Docker Compose", compose, needed)
