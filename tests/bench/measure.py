"""Runs one tool on one core, samples its CPU time, and compares its report with the server's truth."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import requests

from tests.bench.tools import Reported, Tool, Work
from tests.rig.fault_engine.process import running_engine

if TYPE_CHECKING:
    from collections.abc import Collection

TTFT_MS, GAP_MS = 50, 20
CLIENT_CORE, SERVER_CORE = 0, 1
_SAMPLE_S = 0.1
_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds; `truth` is the server's, `reported` the tool's."""

    tool: str
    streams: int
    truth: Reported
    reported: Reported
    cpu_us_per_token: float
    tokens_per_s: float
    server_late_p99: float


def measure(tool: Tool, folder: Path, *, streams: int, rounds: int, tokens: int, prefix: list[str]) -> Measured:
    """Run `tool` with `streams` in parallel, each with `rounds` requests of `tokens` tokens.

    `prefix` precedes the commands of server and tool.
    """
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_engine("--ttft-ms", str(TTFT_MS), "--gap-ms", str(GAP_MS), prefix=_pinned(SERVER_CORE, prefix)) as url,
    ):
        out = Path(scratch)
        out.chmod(0o777)  # a container's user writes here
        work = Work(url, streams, streams * rounds, 64, tokens)
        with tool.ready(folder, out):
            command = [*_pinned(CLIENT_CORE, prefix), *tool.command(work, folder, out)]
            samples = _run(command, out / "log", allowed=tool.exit_codes)
        truth = requests.get(f"{url}/truth", timeout=60).json()
        begin, end = truth["window"]
        cpu = _at(samples, end) - _at(samples, begin)
        return Measured(
            tool=tool.name,
            streams=streams,
            truth=Reported(
                *(truth["ttft_ms"]["p50"], truth["ttft_ms"]["p99"], truth["gap_ms"]["p99"], truth["gap_ms"]["p50"])
            ),
            reported=tool.read(out),
            cpu_us_per_token=cpu * 1e6 / truth["tokens"],
            tokens_per_s=truth["tokens"] / (end - begin),
            server_late_p99=truth["late_ms"]["p99"],
        )


def _pinned(core: int, prefix: list[str]) -> list[str]:
    return [*prefix, "taskset", "-c", str(core)]


def _run(command: list[str], log: Path, allowed: Collection[int]) -> list[tuple[float, float]]:
    """Run a tool; return samples of (Unix time, CPU seconds of all its processes). `allowed` are exit codes."""
    samples: list[tuple[float, float]] = []
    stop = threading.Event()
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        sampler = threading.Thread(target=_sample, args=(process.pid, samples, stop))
        sampler.start()
        try:
            process.wait(timeout=_TIMEOUT_S)
        finally:
            stop.set()
            sampler.join()
            if process.poll() is None:
                process.kill()
    if process.returncode not in allowed:
        raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    return samples


def _sample(pid: int, samples: list[tuple[float, float]], stop: threading.Event) -> None:
    used: dict[int, float] = {}
    while not stop.wait(_SAMPLE_S):
        for process in _processes(pid):
            with suppress(psutil.Error):
                times = process.cpu_times()
                used[process.pid] = times.user + times.system
        samples.append((time.time(), sum(used.values())))


def _processes(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []  # ended


def _at(samples: list[tuple[float, float]], moment: float) -> float:
    """CPU seconds at `moment`, between the samples around it."""
    before = max((sample for sample in samples if sample[0] <= moment), default=samples[0])
    after = min((sample for sample in samples if sample[0] >= moment), default=samples[-1])
    if after[0] == before[0]:
        return before[1]
    return before[1] + (after[1] - before[1]) * (moment - before[0]) / (after[0] - before[0])
