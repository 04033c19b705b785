"""Exit codes of start scripts: after a reboot Docker restarts an `on-failure` container only if it failed."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

DOCKER = Path(__file__).parents[3] / "docker"
pytestmark = pytest.mark.timeout(60)
# Program of each start script.
PROGRAMS = {"alertmanager": "alertmanager", "edge": "caddy", "router": "vllm-router"}
SETTINGS = {"ALERT_WEBHOOK_URL": "http://a.test", "EDGE_DOMAIN": "a.test", "EDGE_PASSWORD": "123456789012"}
# Prints a hash for Caddy's hash-password; else runs until stopped, finishes its work, and exits with 0.
STAND_IN = """#!/bin/sh
case ${1:-} in hash-password) echo hash; exit 0 ;; fails) exit 3 ;; esac
trap 'echo ended gently; exit 0' TERM
echo started
while :; do sleep 0.05; done
"""


def start(service: str, tmp_path: Path, *args: str) -> subprocess.Popen[str]:
    """Start the service's script with a stand-in for its program."""
    program = tmp_path / PROGRAMS[service]
    program.write_text(STAND_IN)
    program.chmod(0o755)
    script = (DOCKER / service / "start.sh").read_text()
    script = script.replace("/bin/alertmanager", "alertmanager").replace("/tmp/", f"{tmp_path}/")  # noqa: S108
    return subprocess.Popen(
        ["sh", "-c", script, "start.sh", *args],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **SETTINGS},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("service", PROGRAMS)
def test_stopped_service_exits_with_143(service: str, tmp_path: Path) -> None:
    with start(service, tmp_path) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "started\n"
        running.send_signal(signal.SIGTERM)
        assert running.stdout.readline() == "ended gently\n"
        assert running.wait(timeout=10) == 143


@pytest.mark.parametrize("service", ["alertmanager", "router"])
def test_failed_program_keeps_its_exit_code(service: str, tmp_path: Path) -> None:
    with start(service, tmp_path, "fails") as running:
        assert running.wait(timeout=10) == 3
