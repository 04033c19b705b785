"""One tool's run: on one core, its CPU time sampled, its report held against what the server did."""

from __future__ import annotations

import os
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
from tests.fault_engine.process import running_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

TTFT_MS, GAP_MS = 50, 20
CLIENT_CORE, SERVER_CORE = 0, 1
_SAMPLE_S = 0.1
_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds; `truth` is what the server did, `reported` what the tool said of it."""

    tool: str
    streams: int
    truth: Reported
    reported: Reported
    cpu_us_per_token: float
    tokens_per_s: float
    server_late_p99: float


def measure(tool: Tool, folder: Path, *, streams: int, rounds: int, tokens: int, realtime: bool) -> Measured:
    """Run `tool` with `streams` at a time, each `rounds` requests of `tokens` tokens.

    `realtime` runs server and tool with real-time priority (needs root), which keeps what else the machine does out.
    """
    priority = ["chrt", "-f", "20"] if realtime else []
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_engine(
            "--ttft-ms", str(TTFT_MS), "--gap-ms", str(GAP_MS), prefix=_pinned(SERVER_CORE, priority)
        ) as url,
    ):
        out = Path(scratch)
        out.chmod(0o777)  # a container's user writes here
        work = Work(url, streams, streams * rounds, 64, tokens)
        samples = _run(tool, work, folder, out, _pinned(CLIENT_CORE, priority))
        truth = requests.get(f"{url}/truth", timeout=60).json()
        begin, end = truth["window"]
        cpu = _at(samples, end) - _at(samples, begin)
        return Measured(
            tool=tool.name,
            streams=streams,
            truth=Reported(truth["ttft_ms"]["p50"], truth["ttft_ms"]["p99"], truth["gap_ms"]["p99"]),
            reported=tool.read(out),
            cpu_us_per_token=cpu * 1e6 / truth["tokens"],
            tokens_per_s=truth["tokens"] / (end - begin),
            server_late_p99=truth["late_ms"]["p99"],
        )


def _pinned(core: int, priority: list[str]) -> list[str]:
    return ["taskset", "-c", str(core), *priority]


def _run(tool: Tool, work: Work, folder: Path, out: Path, prefix: list[str]) -> list[tuple[float, float]]:
    """Run the tool; returns (Unix time, CPU seconds so far of all its processes)."""
    command = tool.command(work, folder, out)
    if command[0] == "docker":  # what is pinned is inside
        command[2:2] = ["-e", f"PREFIX={' '.join(prefix)}"]
    else:
        command = [*prefix, *command]
    log = out / "log"
    samples: list[tuple[float, float]] = []
    stop = threading.Event()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
        sampler = threading.Thread(target=_sample, args=(process.pid, out / "container", samples, stop))
        sampler.start()
        try:
            process.wait(timeout=_TIMEOUT_S)
        finally:
            stop.set()
            sampler.join()
            if process.poll() is None:
                process.kill()
    if not samples or process.returncode:  # ours: a valid run, too
        raise RuntimeError(f"{tool.name} failed:\n{log.read_text()[-2000:]}")
    return samples


def _sample(pid: int, container: Path, samples: list[tuple[float, float]], stop: threading.Event) -> None:
    used: dict[int, float] = {}
    while not stop.wait(_SAMPLE_S):
        for process in _processes(pid, container):
            with suppress(psutil.Error):
                times = process.cpu_times()
                used[process.pid] = times.user + times.system
        samples.append((time.time(), sum(used.values())))


def _processes(pid: int, container: Path) -> Iterator[psutil.Process]:
    root = pid
    if container.exists() and container.read_text():
        inspect = ["docker", "inspect", "-f", "{{.State.Pid}}", container.read_text()]
        answer = subprocess.run(inspect, capture_output=True, text=True, check=False).stdout.strip()
        root = int(answer or 0)
    with suppress(psutil.Error):
        if root:
            process = psutil.Process(root)
            yield process
            yield from process.children(recursive=True)


def _at(samples: list[tuple[float, float]], moment: float) -> float:
    """CPU seconds at `moment`, between the samples around it."""
    before = max((sample for sample in samples if sample[0] <= moment), default=samples[0])
    after = min((sample for sample in samples if sample[0] >= moment), default=samples[-1])
    if after[0] == before[0]:
        return before[1]
    return before[1] + (after[1] - before[1]) * (moment - before[0]) / (after[0] - before[0])
