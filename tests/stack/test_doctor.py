"""The doctor on a stack that runs, and on one whose engine has failed."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.rig.running_stack import ROOT

if TYPE_CHECKING:
    from tests.rig.running_stack import Stack


def doctor(stack: Stack, **env: str) -> subprocess.CompletedProcess[str]:
    """Run it with this stack's settings, in a terminal as wide as its table."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    project = {"COMPOSE_PROJECT_NAME": stack.project, "COMPOSE_FILE": ":".join(stack.files)}
    return subprocess.run(
        [str(ROOT / "scripts" / "doctor")],
        env=inherited | {"COLUMNS": "140"} | stack.env | project | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_running_stack_is_well(stack: Stack) -> None:
    done = doctor(stack)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failures" in done.stdout
    for line in (
        "ok    model            HuggingFaceTB/SmolLM2-135M-Instruct",
        "ok    vllm             running, healthy",
        "ok    target vllm",
        "ok    target locust",
    ):
        assert line in done.stdout


def test_bad_settings_are_found_beforehand(stack: Stack) -> None:
    done = doctor(stack, BIND_ADDRESS="0.0.0.0", DTYPE="int4")
    assert done.returncode == 1
    assert "VLLM_API_KEY is empty" in done.stdout
    assert "DTYPE=int4" in done.stdout
