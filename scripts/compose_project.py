"""The Compose project of this checkout, through the docker command: its settings, containers and images."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from repository import ROOT

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
