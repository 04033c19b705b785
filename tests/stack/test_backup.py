"""Metrics and reports survive the loss of every volume: saved here, restored into an empty stack, read there."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.rig.running_stack import ROOT, http, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.rig.running_stack import Stack


def backup(stack: Stack, *args: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/backup with this stack's settings."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [str(ROOT / "scripts" / "backup"), *args],
        env=inherited | stack.env | {"COMPOSE_PROJECT_NAME": stack.project, "COMPOSE_FILE": ":".join(stack.files)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def past(stack: Stack, metric: str, at: float) -> list[str]:
    """Return the metric's values in Prometheus at a time."""
    answer = json.loads(http(f"{stack.url('PROMETHEUS_PORT')}/api/v1/query?query={metric}&time={at:.3f}"))
    return sorted(series["value"][1] for series in answer["data"]["result"])


@pytest.fixture(scope="module")
def empty(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A second stack of which nothing was ever started."""
    stack = new_stack("restored")
    stack.compose("build", "locust")
    yield stack
    stack.down()


def test_restore_brings_old_values_back(stack: Stack, empty: Stack, tmp_path: Path) -> None:
    report = "echo kept > /reports/kept"
    stack.compose("exec", "-T", "locust", "sh", "-c", report)
    metric = "vllm:request_success_total"
    # Not now: the newest sample may come a moment later than the question for it.
    wait_for("the engine was read a while ago", lambda: past(stack, metric, time.time() - 10), timeout_s=60)
    at = time.time() - 10
    values = past(stack, metric, at)
    assert values
    saved = backup(stack, "save", str(tmp_path / "saved"))
    assert saved.returncode == 0, saved.stderr
    wait_for("Prometheus is back", lambda: past(stack, "up", time.time()), timeout_s=30)

    restored = backup(empty, "restore", str(tmp_path / "saved"))
    assert restored.returncode == 0, restored.stderr
    empty.compose("up", "-d", "--wait", "--no-deps", "prometheus")
    assert past(empty, metric, at) == values
    kept = empty.compose("run", "--rm", "--no-deps", "--entrypoint", "cat", "locust", "/reports/kept")
    assert kept.stdout == "kept\n"
    # What was restored belongs to its service, which goes on writing.
    wait_for("a new sample", lambda: past(empty, "up", time.time()), timeout_s=30)
    stack.compose("exec", "-T", "locust", "rm", "/reports/kept")

    again = backup(empty, "restore", str(tmp_path / "saved"))
    assert again.returncode == 1
    assert "is not empty: --replace" in again.stderr
    wait_for("Prometheus runs on", lambda: past(empty, metric, at) == values or None, timeout_s=30)


def test_damaged_backup_is_refused(empty: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "reports.tar.gz").write_bytes(b"other bytes")
    (folder / "manifest.json").write_text(json.dumps({"volumes": {"reports": {"bytes": 1, "sha256": "0" * 64}}}))
    done = backup(empty, "restore", str(folder), "--replace")
    assert (done.returncode, "is damaged" in done.stderr) == (1, True)
