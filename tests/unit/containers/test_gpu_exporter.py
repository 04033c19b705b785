"""The exporter's container stays where NVIDIA's program ends, and stops when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

START = Path(__file__).parents[3] / "docker" / "gpu-exporter" / "keep-running.sh"


def start(folder: Path, program: str, retry_s: str) -> subprocess.Popen[str]:
    exporter = folder / "dcgm-exporter-entrypoint.sh"
    exporter.write_text(f"#!/bin/sh\n{program}\n")
    exporter.chmod(0o755)
    return subprocess.Popen(
        ["bash", str(START), "--no-hostname"],
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": f"{folder}:{os.environ['PATH']}", "RETRY_S": retry_s},
    )


def test_ended_exporter_is_tried_again(tmp_path: Path) -> None:
    life = start(tmp_path, 'echo "Failed to initialize NVML $1"; exit 1', "0.05")
    assert life.stdout is not None
    lines = [life.stdout.readline().strip() for _ in range(4)]
    assert lines[0] == lines[2] == "Failed to initialize NVML --no-hostname"
    assert lines[1].startswith("headroom: the exporter ended with 1")
    assert "docs/platforms.md" in lines[1]
    life.terminate()
    assert life.wait(10) == 143


@pytest.mark.parametrize(
    "program", ["echo ended; exit 1", "trap 'echo told; exit 0' TERM; echo runs; while :; do sleep 0.05; done"]
)
def test_stop_ends_it_at_once(tmp_path: Path, program: str) -> None:
    life = start(tmp_path, program, "600")
    assert life.stdout is not None
    life.stdout.readline()
    begun = time.monotonic()
    life.send_signal(signal.SIGTERM)
    rest = life.stdout.read()
    assert life.wait(10) == 143
    assert ("told" in rest) is ("trap" in program)
    assert time.monotonic() - begun < 10
