"""Metrics and silences of a former version are all there under today's.

The former versions are Debian 13's, Prometheus 2.53 and Alertmanager 0.28, in the replacement images' recipes. Today's
are those of the tags in compose.yaml, in the version that the replacement images carry.
"""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.rig.running_stack import ROOT, Stack, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SAMPLES, STEP_S = 720, 15
SCRAPE = """
global: {scrape_interval: 1s}
scrape_configs:
  - {job_name: former, static_configs: [{targets: ["127.0.0.1:9090"]}]}
"""
ROUTE = """
route: {receiver: nobody}
receivers: [{name: nobody}]
"""


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


class Former:
    """A container of a service's former version, on the volume of today's."""

    def __init__(self, service: str, volume: str, files: Path, *command: str) -> None:
        image = f"headroom-former-{service}"
        docker("build", "-q", "-t", image, "--build-arg", "SUITE=trixie", str(ROOT / "docker/airgap" / service))
        mounts = ("-v", f"{volume}:/{service}", "-v", f"{files}:/former:ro")
        self.container = docker("run", "-d", "--network", "none", *mounts, image, *command)

    def ask(self, *words: str) -> str:
        return docker("exec", self.container, *words)

    def answers(self, *words: str) -> str:
        """As `ask`, and nothing while it does not answer."""
        done = subprocess.run(["docker", "exec", self.container, *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    def stop(self) -> None:
        docker("stop", "-t", "30", self.container)


@pytest.fixture(scope="module")
def upgraded(new_stack: Callable[..., Stack]) -> Stack:
    return new_stack("upgrade", ALERT_WEBHOOK_URL="http://127.0.0.1:9/")


@pytest.fixture
def started() -> Iterator[list[Former]]:
    containers: list[Former] = []
    yield containers
    for one in containers:
        docker("rm", "-f", "-v", one.container)


def version(stack: Stack, service: str, program: str) -> str:
    return docker("exec", str(stack.container(service).id), program, "--version").split()[2]


def test_metrics_outlive_an_upgrade(upgraded: Stack, started: list[Former], tmp_path: Path) -> None:
    now = int(time.time())
    times = [now - 7200 - STEP_S * back for back in range(SAMPLES)][::-1]
    lines = "".join(f"former_requests_total {number} {at}\n" for number, at in enumerate(times))
    (tmp_path / "metrics").write_text(f"# TYPE former_requests counter\n{lines}# EOF\n")
    (tmp_path / "prometheus.yml").write_text(SCRAPE)
    tmp_path.chmod(0o755)
    command = ("--config.file=/former/prometheus.yml", "--storage.tsdb.path=/prometheus")
    former = Former("prometheus", f"{upgraded.project}_prometheus-data", tmp_path, *command)
    started.append(former)
    query = ("promtool", "query", "instant", "http://127.0.0.1:9090")
    wait_for("three scrapes", lambda: former.answers(*query, "count_over_time(up[1h]) >= 3"), 60)
    former.ask("promtool", "tsdb", "create-blocks-from", "openmetrics", "/former/metrics", "/prometheus")
    assert "version 2." in former.ask("prometheus", "--version")
    former.stop()

    upgraded.compose("up", "-d", "--wait", "--no-deps", "prometheus")
    assert not version(upgraded, "prometheus", "prometheus").startswith("2.")
    assert upgraded.value("count_over_time(former_requests_total[12h])") == SAMPLES
    assert upgraded.value("max_over_time(former_requests_total[12h])") == SAMPLES - 1
    assert upgraded.value('count_over_time(up{job="former"}[1h])') >= 3  # from the write-ahead log
    assert upgraded.value('prometheus_tsdb_wal_corruptions_total{job="prometheus"} or vector(0)') == 0


def test_silences_outlive_an_upgrade(upgraded: Stack, started: list[Former], tmp_path: Path) -> None:
    (tmp_path / "alertmanager.yml").write_text(ROUTE)
    tmp_path.chmod(0o755)
    command = ("--config.file=/former/alertmanager.yml", "--storage.path=/alertmanager", "--cluster.listen-address=")
    former = Former("alertmanager", f"{upgraded.project}_alertmanager-data", tmp_path, *command)
    started.append(former)
    amtool = ("amtool", "--alertmanager.url=http://127.0.0.1:9093", "silence")
    add = ("add", "-d", "24h", "-a", "me", "-c", "planned", "alertname=EngineDown")
    silence = wait_for("a silence", lambda: former.answers(*amtool, *add), 60)
    assert "version 0.28" in former.ask("alertmanager", "--version")
    former.stop()

    upgraded.compose("--profile", "alerting", "up", "-d", "--no-deps", "alertmanager")
    own = str(upgraded.container("alertmanager").id)
    ask = ["docker", "exec", own, *amtool, "query", "-q"]
    found = wait_for(
        "Alertmanager", lambda: subprocess.run(ask, capture_output=True, text=True, check=False).stdout, 60
    )
    assert found.split() == [silence]
    assert not version(upgraded, "alertmanager", "alertmanager").startswith("0.28")
