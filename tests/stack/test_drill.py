"""The quick drills, as a person runs them; docs/evidence has a run of all."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.rig.running_stack import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.running_stack import Stack


def drill(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/drill", *arguments, "--project", stack.project],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
        check=False,
    )


@pytest.mark.timeout(600)
def test_quick_drills_pass(stack: Stack, tmp_path: Path) -> None:
    names = ["engine-killed", "worker-killed", "prometheus-killed"]
    done = drill(stack, *names, "--yes", "--report", str(tmp_path / "drills.md"))
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / "drills.md").read_text()
    assert report.count("| passed |") == len(names)
    assert "EngineRestarted" in report


def test_what_is_not_there_is_skipped_and_said(stack: Stack) -> None:
    done = drill(stack, "grafana-killed", "--yes")
    assert done.returncode == 0
    assert "this stack has no Grafana" in done.stdout


def test_nothing_is_broken_without_a_yes(stack: Stack) -> None:
    before = {one.id: one.attrs["State"]["StartedAt"] for one in [stack.container("vllm")]}
    done = drill(stack, "machine-restart")
    assert done.returncode == 2
    assert "everything is away" in done.stdout
    assert {one.id: one.attrs["State"]["StartedAt"] for one in [stack.container("vllm")]} == before


def test_a_stack_that_is_not_there_is_named(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/drill", "engine-killed", "--project", "no-such-stack"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no stack is called no-such-stack" in done.stderr
    assert stack.project in done.stderr
