"""`scripts/capacity` against a served engine of known capacity: exit codes, reports and void stages."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.rig.fault_engine.process import ROOT, running_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLO = ("--slo-ttft-ms", "500", "--slo-tpot-ms", "50")
SHAPE = ("--endpoint", "chat", "--prompt-tokens", "64", "--output-tokens", "22")
# 8 slots and 0.44 s a request: 18 requests/s at most.
ENGINE = ("--kind", "batch_slots")


@contextlib.contextmanager
def engine(*arguments: str) -> Iterator[str]:
    with running_engine(*(arguments or ENGINE), module="tests.rig.simulated_engine") as url:
        yield url


def command(url: str, folder: Path, *arguments: str) -> list[str]:
    return [
        *(sys.executable, "scripts/capacity", "--host", url, *SHAPE, *SLO, "--report-dir", str(folder)),
        *arguments,
    ]


def capacity(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(url, folder, *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "capacity.json").read_text())
    return result


def voids(folder: Path) -> list[str]:
    return [reason for stage in result_of(folder)["stages"] for reason in stage["void"]]


# Enough for some stages of few requests.
SHORT = ("--budget", "22s", "--start-rate", "4", "--max-rate", "8")


def test_floor_exits_0_with_report(tmp_path: Path) -> None:
    with engine() as url:
        # It ends at the highest rate; a busy host takes longer to get there.
        run = capacity(url, tmp_path, *SHORT, "--budget", "60s")
    assert run.returncode == 0, run.stdout
    assert "Capacity: at least 8.00 requests/s (the highest rate that may be tried)" in run.stdout
    assert re.search(r"stage 0 \(probe\) at 4.00 requests/s: 100.0% of \d+ good .*; \d:\d\d gone, at most", run.stdout)
    result = result_of(tmp_path)
    assert (result["verdict"]["valid"], result["capacity"]["bound"]) == (True, "floor")
    assert result["capacity"]["output_tokens_per_second"]["low"] == 8 * 22
    assert result["run"]["engine"]["cache_config"]["block_size"] == "16"
    assert all(stage["requests"] >= 8 for stage in result["stages"])
    assert "<html" in (tmp_path / "report.html").read_text()
    rows = (tmp_path / "requests.csv").read_text().splitlines()
    assert len({row.split(",", 1)[0] for row in rows}) == len(rows)  # request numbers are unique


def test_closed_loop_skips_idle_processes(tmp_path: Path) -> None:
    with engine() as url:
        run = capacity(
            *(url, tmp_path, "--processes", "3", "--budget", "30s", "--start-rate", "1", "--max-rate", "1"),
            *("--seed", "11"),  # a seed that leaves most of the budget to the closed loops
        )
    users = result_of(tmp_path)["users"]
    assert [tried["users"] for tried in users][:1] == [1], run.stdout
    assert users[0]["requests"] > 0, run.stdout


def test_foreign_load_voids_stages(tmp_path: Path) -> None:
    stop = threading.Event()

    def disturb(url: str) -> None:
        body = {"model": "engine", "prompt": "somebody else", "max_tokens": 4}
        while not stop.is_set():
            requests.post(f"{url}/v1/completions", json=body, timeout=10)
            stop.wait(0.2)

    with engine() as url:
        other = threading.Thread(target=disturb, args=(url,))
        other.start()
        try:
            run = capacity(url, tmp_path, *SHORT)
        finally:
            stop.set()
            other.join()
    assert run.returncode == 2, run.stdout
    assert "NO VALID CAPACITY" in run.stdout
    assert any("somebody else used the server" in reason for reason in voids(tmp_path))


def test_starved_client_voids_stages(tmp_path: Path) -> None:
    with (
        engine() as url,
        subprocess.Popen(
            command(url, tmp_path, *SHORT),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        first = process.stdout.readline()  # the search has started
        over = threading.Event()

        def throttle() -> None:
            while not over.wait(0.02):
                os.killpg(process.pid, signal.SIGSTOP)
                over.wait(0.18)
                os.killpg(process.pid, signal.SIGCONT)

        throttling = threading.Thread(target=throttle)
        throttling.start()
        try:
            for line in process.stdout:
                if "void:" in line:
                    break
        finally:
            over.set()
            throttling.join()
        output = first + line + process.stdout.read()
        process.wait(timeout=60)
    assert any("arrivals were late" in reason for reason in voids(tmp_path)), output


def test_warm_prefix_cache_voids_stages(tmp_path: Path) -> None:
    with engine() as url:
        first = capacity(url, tmp_path, *SHORT, "--seed", "7")
        second = capacity(url, tmp_path, *SHORT, "--seed", "7")
    assert first.returncode == 0, first.stdout
    warm = [stage for stage in result_of(tmp_path)["stages"] if stage["void"]]
    assert warm, second.stdout
    assert warm[0]["number"] == 0
    reasons = [reason for stage in warm for reason in stage["void"]]
    # On a busy host, arrivals may also be late.
    others = [reason for reason in reasons if not reason.startswith(("the client was", "arrivals were late"))]
    assert others
    assert all("the prefix cache was warm" in reason for reason in others)


def test_never_met_slo_exits_1(tmp_path: Path) -> None:
    with engine(*ENGINE, "--slower", "3") as url:  # 60 ms a token
        # So few tokens and requests that each meets an idle engine, even on a slow host.
        run = capacity(url, tmp_path, "--output-tokens", "3", "--budget", "60s", "--start-rate", "0.6")
    assert run.returncode == 1, run.stdout
    assert result_of(tmp_path)["capacity"]["bound"] == "never_met"
    # The cores that other tests use are a cause of their own.
    assert result_of(tmp_path)["verdict"]["limit"]["cause"] in {"decode_speed", "host_cpu"}


def test_ctrl_c_exits_130_with_report(tmp_path: Path) -> None:
    with (
        engine() as url,
        subprocess.Popen(
            command(url, tmp_path, "--budget", "2m", "--start-rate", "4"),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("stage 0"):
                break
        # To the whole process group, like a terminal.
        os.killpg(process.pid, signal.SIGINT)
        output = process.stdout.read()
        assert process.wait(timeout=60) == 130, output
    result = result_of(tmp_path)
    assert (result["capacity"]["ended"], result["verdict"]["valid"]) == ("stopped", False)
    assert len(result["stages"]) >= 1


@pytest.mark.longest
def test_gate_fails_a_slower_engine(tmp_path: Path) -> None:
    # Both engines meet the TPOT limit; the second rate exceeds the slower engine's 3 requests/s, so missing it proves
    # the drop even with few requests. The seed avoids arrivals that are twice as fast by chance.
    settings = ("--slo-tpot-ms", "300", "--interval", "20", "--seed", "5")
    with engine() as url:
        first = capacity(url, tmp_path / "before", *settings, "--start-rate", "8", "--budget", "60s")
    assert first.returncode == 0, first.stdout
    baseline = ("--baseline", str(tmp_path / "before"))
    with engine(*ENGINE, "--slower", "6") as url:
        slower = capacity(url, tmp_path / "after", *settings, *baseline, "--start-rate", "2", "--budget", "45s")
    assert slower.returncode == 1, slower.stdout
    assert "Gate FAILED" in slower.stdout
    compared = subprocess.run(
        [
            *(sys.executable, "scripts/capacity", "compare", str(tmp_path / "before"), str(tmp_path / "after")),
            *("--report", str(tmp_path / "both.html")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert compared.returncode == 0, compared.stderr
    assert "Capacity compared" in (tmp_path / "both.html").read_text()
