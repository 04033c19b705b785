"""Docker and Compose: whether they are there and new enough, and what Compose makes of the settings."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.doctor.finding import Finding, fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
MIN_ENGINE, MIN_COMPOSE = (25, 0), (2, 24)
# Older engines let the local network reach containers directly, past a port that is bound to 127.0.0.1.
CLOSED_ENGINE = (28, 0)
_TIMEOUT_S = 60


class DockerError(Exception):
    """A docker command failed; the text is what it said."""


def docker(*args: str, timeout_s: float = _TIMEOUT_S) -> str:
    """Output of a docker command, run where compose.yaml lies. Raises DockerError."""
    try:
        done = subprocess.run(  # noqa: S603  # our own arguments
            ["docker", *args],  # noqa: S607  # docker is taken from PATH, as a user has it
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise DockerError("the command docker is not there") from None
    except subprocess.TimeoutExpired:
        raise DockerError(f"no answer within {timeout_s:g} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise DockerError(lines[-1] if lines else f"exit code {done.returncode}")
    return done.stdout


def version_of(text: str) -> tuple[int, int]:
    """Major and minor number of a version such as v2.26.1-4; (0, 0) when there is none."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def check_versions() -> Iterator[Finding]:
    """Docker Engine and Compose."""
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
    needed = f"{MIN_COMPOSE[0]}.{MIN_COMPOSE[1]} or newer"
    try:
        compose = docker("compose", "version", "--short").strip()
    except DockerError:
        yield fail("Docker Compose", "not there", needed, "install docker-compose-plugin (Debian: docker-compose)")
        return
    if version_of(compose) < MIN_COMPOSE:
        yield fail("Docker Compose", compose, needed, "upgrade Docker Compose")
    else:
        yield ok("Docker Compose", compose, needed)


def rendered() -> dict[str, Any]:
    """What Compose makes of the files and settings here. Raises DockerError with Compose's own words."""
    model: dict[str, Any] = json.loads(docker("compose", "config", "--format", "json"))
    return model


def info() -> dict[str, Any]:
    """What `docker info` says."""
    document: dict[str, Any] = json.loads(docker("info", "--format", "{{json .}}"))
    return document


def containers() -> list[dict[str, Any]]:
    """Containers of the project, stopped ones too, as `docker inspect` shows them."""
    ids = docker("compose", "--profile", "*", "ps", "--all", "--quiet").split()
    found: list[dict[str, Any]] = json.loads(docker("inspect", *ids)) if ids else []
    return [box for box in found if box["Config"]["Labels"].get("com.docker.compose.oneoff") != "True"]


def has_image(name: str) -> bool:
    """Whether the image is on this box."""
    try:
        docker("image", "inspect", "--format", "{{.Id}}", name)
    except DockerError:
        return False
    return True
