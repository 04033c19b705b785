"""The Compose project of this checkout, through the docker command: settings, containers, images and volumes."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
ONE_OFF_LABEL = "com.docker.compose.oneoff"  # "True" for a job of `docker compose run`, else "False"
_TIMEOUT_S = 60


class DockerError(Exception):
    """A docker command failed; the message is the last line of its output."""


def docker(*args: str, timeout_s: float = _TIMEOUT_S) -> str:
    """Output of a docker command, run in the folder of compose.yaml. Raises DockerError."""
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


def compose(*args: str, every_profile: bool = False, timeout_s: float = _TIMEOUT_S) -> str:
    """Output of `docker compose`; `every_profile`: with services that .env leaves off. Raises DockerError."""
    profiles = ("--profile", "*") if every_profile else ()
    return docker("compose", *profiles, *args, timeout_s=timeout_s)


def rendered(*, every_profile: bool = False) -> dict[str, Any]:
    """Compose's model of the files and settings here. Raises DockerError with Compose's own message."""
    # Compose doubles each $ of a value, so that its output is a valid input.
    text = compose("config", "--format", "json", every_profile=every_profile).replace("$$", "$")
    model: dict[str, Any] = json.loads(text)
    return model


def info() -> dict[str, Any]:
    """Document of `docker info`. Raises DockerError."""
    document: dict[str, Any] = json.loads(docker("info", "--format", "{{json .}}"))
    return document


def name() -> str:
    """Name of the project, from .env, the shell or this folder. Raises DockerError."""
    project: str = rendered()["name"]
    return project


def containers() -> list[dict[str, Any]]:
    """Containers of the project as `docker inspect` shows them: stopped ones too, jobs left out. Raises DockerError."""
    labels = (f"{PROJECT_LABEL}={name()}", f"{ONE_OFF_LABEL}=False")
    filters = [option for label in labels for option in ("--filter", f"label={label}")]
    ids = docker("ps", "--all", "--quiet", *filters).split()
    found: list[dict[str, Any]] = json.loads(docker("inspect", *ids)) if ids else []
    return found


def service_of(container: Mapping[str, Any]) -> str:
    """Name of a container's service."""
    service: str = container["Config"]["Labels"][SERVICE_LABEL]
    return service


def has_image(name: str) -> bool:
    """Return whether the image is on this box."""
    return _exists("image", name)


def has_volume(name: str) -> bool:
    """Return whether the volume is on this box."""
    return _exists("volume", name)


def _exists(kind: str, name: str) -> bool:
    try:
        docker(kind, "inspect", name)
    except DockerError:
        return False
    return True
