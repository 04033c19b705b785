"""Prometheus' own tool, from the image that compose.yaml names."""

from __future__ import annotations

import subprocess

from tests.rig.compose_model import ROOT, render

# The service runs this before Prometheus: it writes the rules of the SLO.
START = "sh /etc/prometheus/start.sh --version"


def in_prometheus(script: str, *, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in the Prometheus image, as closed as the service is; the checkout is in /repo."""
    command = ["docker", "run", "--rm", "--interactive", "--network", "none", "--read-only"]
    command += ["--tmpfs", "/tmp:mode=1777"]  # noqa: S108  # in the container
    for name, value in env.items():
        command += ["--env", f"{name}={value}"]
    command += ["--volume", f"{ROOT}:/repo:ro", "--volume", f"{ROOT}/docker/prometheus:/etc/prometheus:ro"]
    command += ["--entrypoint", "sh", render()["services"]["prometheus"]["image"], "-c", script]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=580, check=False)
