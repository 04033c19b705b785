"""`python -m tests.bench.scaling workers|router`: measures the cost of scaling, against a scripted engine.

workers: the same load from 1, 2 and 4 load-generating processes. On few cores they share them, so compare the CPU time
per token.
router: the same load directly on two engines in turn, and through vLLM's router; needs `--router COMMAND`.
No test: nothing passes or fails here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import requests
from rich.console import Console
from rich.table import Table

from tests.rig.fault_engine.process import ROOT, running_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

TTFT_MS, GAP_MS = 50, 20


def load(url: str, *options: str, engines: str = "") -> dict[str, Any]:
    """Summary of one headless run."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "--only-summary"]
        command += ["--host", url, "--engine-urls", engines, "--endpoint", "chat", "--report-dir", out, *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        if not (Path(out) / "summary.json").exists():
            raise RuntimeError(done.stdout + done.stderr)
        summary: dict[str, Any] = json.loads((Path(out) / "summary.json").read_text())
    return summary


def workers(streams: int, requests_each: int, tokens: int) -> Table:
    """Rate and cost by the number of processes."""
    table = Table(title=f"{streams} streams of {tokens} tokens each {GAP_MS} ms, shared out over N processes")
    for column in (
        *("processes", "tokens/s", "tokens/s each", "client us/token", "cost / cost of one"),
        *("busiest process", "TTFT p50 / p99 ms", "gap p99 ms", "valid"),
    ):
        table.add_column(column, justify="right")
    base = None
    for processes in (1, 2, 4):
        with running_engine("--ttft-ms", str(TTFT_MS), "--gap-ms", str(GAP_MS)) as url:
            summary = load(
                url,
                *("-u", str(streams), "-r", str(streams), "--max-requests", str(streams * requests_each)),
                *("--prompt-tokens", "64", "--output-tokens", str(tokens)),
                *(("--processes", str(processes)) if processes > 1 else ()),
            )
        rate = summary["throughput"]["output_tokens_per_s"]
        cost = summary["client"]["cpu_us_per_token"]
        base = base or cost
        busiest = max(process["cpu_ratio"] for process in summary["client"]["processes"].values())
        table.add_row(
            *(str(processes), f"{rate:.0f}", f"{rate / processes:.0f}", f"{cost:.1f}", f"{cost / base:.2f}"),
            f"{busiest:.0%}",
            f"{summary['ttft_ms']['p50']:.1f} / {summary['ttft_ms']['p99']:.1f}",
            f"{summary['chunk_gap_ms']['p99']:.1f}",
            "; ".join(summary["verdict"]["reasons"]) or "yes",
        )
    return table


@contextlib.contextmanager
def running_router(command: list[str], engines: list[str], policy: str) -> Iterator[tuple[str, psutil.Process]]:
    """vLLM's router before `engines`, started as compose.scale.yaml starts it."""
    options = ["--host=127.0.0.1", "--port=18700", "--prometheus-port=18790", f"--policy={policy}"]
    options += [
        "--retry-max-retries=1",
        "--disable-circuit-breaker",
        "--health-check-interval-secs=1",
        "--log-level=error",
    ]
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = "http://127.0.0.1:18700"
        try:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(requests.RequestException):
                    requests.get(f"{url}/liveness", timeout=1)
                    break
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{shlex.join(command)} does not answer")
                time.sleep(0.1)
            for engine in engines:
                requests.post(f"{url}/add_worker", params={"url": engine}, timeout=10).raise_for_status()
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process and its children."""
    times = [part.cpu_times() for part in (process, *process.children(recursive=True))]
    return sum(part.user + part.system for part in times)


def router(command: list[str], rates: list[float], seconds: int) -> Table:
    """Latency added by the router, and its CPU time per request and token."""
    table = Table(title="Through the router, less straight at the engine; open loop, the same schedule")
    for column in (
        *("output tokens", "requests/s", "requests", "TTFT +p50 ms", "TTFT +p99 ms"),
        *("gap +p99 ms", "E2E +p50 ms", "router CPU us/request", "failed"),
    ):
        table.add_column(column, justify="right")
    cost = {}
    arguments = ("--ttft-ms", str(TTFT_MS), "--gap-ms", str(GAP_MS))
    with running_engine(*arguments) as one, running_engine(*arguments) as two:
        for tokens in (2, 64):
            for rate in rates:
                options = ["-u", "1", "--arrival", "constant", "--rate", f"{rate:g}", "--seed", "7"]
                options += ["--max-requests", str(int(rate * seconds)), "--prompt-tokens", "64"]
                options += ["--output-tokens", str(tokens)]
                straight = load(one, *options)
                with running_router(command, [one, two], "round_robin") as (url, process):
                    before = cpu_s(process)
                    through = load(url, *options, engines=f"{one} {two}")
                    used = cpu_s(process) - before
                total = through["requests"]["total"]
                cost[tokens, rate] = used / total * 1e6

                def added(quantity: str, percentile: str, a: Any = through, b: Any = straight) -> str:
                    return f"{a[quantity][percentile] - b[quantity][percentile]:+.2f}"

                table.add_row(
                    *(str(tokens), f"{rate:g}", str(total)),
                    *(added("ttft_ms", "p50"), added("ttft_ms", "p99"), added("chunk_gap_ms", "p99")),
                    *(added("e2e_ms", "p50"), f"{cost[tokens, rate]:.0f}", str(total - through["requests"]["ok"])),
                )
    each = [(cost[64, rate] - cost[2, rate]) / 62 for rate in rates]
    table.caption = "router CPU a token beyond the second: " + ", ".join(f"{value:.1f} us" for value in each)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scaling", description=__doc__)
    parser.add_argument("what", choices=["workers", "router"])
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=6, help="workers: requests of each stream")
    parser.add_argument("--output-tokens", type=int, default=50)
    parser.add_argument("--router", default="vllm-router", help="router: the command that starts it")
    parser.add_argument("--rates", nargs="+", type=float, default=[20.0, 100.0], help="router: requests/s")
    parser.add_argument("--seconds", type=int, default=10, help="router: length of one run")
    given = parser.parse_args()
    if given.what == "workers":
        table = workers(given.streams, given.rounds, given.output_tokens)
    else:
        table = router(shlex.split(given.router), given.rates, given.seconds)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
