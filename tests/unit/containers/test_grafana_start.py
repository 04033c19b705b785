"""Grafana's start script: anonymous viewers, passwords, refusals."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

START = Path(__file__).parents[3] / "docker" / "grafana" / "start.sh"
OWN = "a password of one's own"


def start(tmp_path: Path, from_file: str | None = None, **env: str) -> tuple[int, dict[str, str], str]:
    """Exit code, Grafana's environment, and standard error."""
    secret = tmp_path / "secret"
    if from_file is not None:
        secret.write_bytes(from_file.encode())
    # Replaces only Grafana's own start script and the secret's path.
    script = (
        START.read_text().replace('/run.sh "$@"', "env").replace("/run/secrets/grafana_admin_password", str(secret))
    )
    done = subprocess.run(
        ["sh", "-c", script], env={"PATH": "/usr/bin:/bin", **env}, capture_output=True, text=True, check=False
    )
    return done.returncode, dict(line.split("=", 1) for line in done.stdout.splitlines()), done.stderr


@pytest.mark.parametrize("address", ["", "127.0.0.1", "::1"])
def test_loopback_allows_anonymous_viewers(tmp_path: Path, address: str) -> None:
    code, env, _ = start(tmp_path, BIND_ADDRESS=address, GF_SECURITY_ADMIN_PASSWORD="")
    assert code == 0
    assert env["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert env["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in env


def test_other_machines_need_a_password(tmp_path: Path) -> None:
    code, _, said = start(tmp_path, BIND_ADDRESS="0.0.0.0", GF_SECURITY_ADMIN_PASSWORD="")
    assert code == 2
    assert said.startswith("headroom: BIND_ADDRESS=0.0.0.0")
    assert "GRAFANA_ADMIN_PASSWORD is empty" in said
    code, env, _ = start(tmp_path, BIND_ADDRESS="0.0.0.0", GF_SECURITY_ADMIN_PASSWORD=OWN)
    assert (code, env["GF_AUTH_ANONYMOUS_ENABLED"], env["GF_SECURITY_ADMIN_PASSWORD"]) == (0, "false", OWN)


def test_password_from_a_file(tmp_path: Path) -> None:
    code, env, _ = start(tmp_path, "from a file\n", BIND_ADDRESS="0.0.0.0", GF_SECURITY_ADMIN_PASSWORD="")
    assert (code, env["GF_SECURITY_ADMIN_PASSWORD"]) == (0, "from a file")
    assert "\r" not in "".join(start(tmp_path, "from a file\r\n")[1].values())
    assert start(tmp_path, "one", GF_SECURITY_ADMIN_PASSWORD=OWN)[0] == 2
