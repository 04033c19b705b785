"""The load test as a person starts it: a Locust process from the command line."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
import requests

from loadtest.sending.arrivals import schedule
from tests.rig.fault_engine.process import ROOT, running_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


# A block of ports for each of pytest-xdist's processes, below those that the kernel gives to connections: a port that
# is free now may be another run's by the time it is used, and workers of one run then join the other.
FIRST_PORT = 20_000 + 500 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
PORTS = itertools.cycle(range(FIRST_PORT, FIRST_PORT + 500))
RUN_TIMEOUT_S = 120


def free_port() -> int:
    for number in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", number))
            return number
    raise AssertionError


def run_locust(*arguments: str, largest_file: int | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "--only-summary"]
    if "--processes" in arguments:  # not Locust's own port: workers of another run on this machine would join this one
        port = str(free_port())
        command += ["--master-bind-port", port, "--master-port", port]
    with subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=None  # noqa: PLW1509  # this process has no threads of its own
        if largest_file is None
        else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file,) * 2),
    ) as process:
        try:
            output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)  # each process then says where it stands
            output, _ = process.communicate()
            pytest.fail(f"not over within {RUN_TIMEOUT_S} s:\n{output}")
    return subprocess.CompletedProcess(process.args, process.returncode, output)


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]])
def test_headless_run_counts_each_request_once(processes: list[str]) -> None:
    with running_engine("--ttft-ms", "20", "--gap-ms", "5") as url:
        run = run_locust("--host", url, "-u", "8", "-r", "8", "-t", "4s", *SHORTEST, *processes)
        counted = requests.get(f"{url}/metrics", timeout=5).text
    assert run.returncode == 0, run.stdout
    assert "did not answer" not in run.stdout
    rows = dict(re.findall(r"^POST +(/v1/\S+) +(\d+) +0\(0\.00%\)", run.stdout, re.MULTILINE))
    total = int(re.findall(r"^ +Aggregated +(\d+) ", run.stdout, re.MULTILINE)[0])
    ended = float(
        re.findall(r'^vllm:request_success_total{\S*finished_reason="length"\S* (\S+)', counted, re.MULTILINE)[0]
    )
    assert set(rows) == {"/v1/chat/completions", "/v1/completions"}
    assert sum(map(int, rows.values())) == total
    assert total <= ended <= total + 8  # the server may have ended what the stop cut off at the client


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "http://127.0.0.1:1"], "--host: http://127.0.0.1:1/v1/models does not answer"),
        (["--host", "nonsense"], "--host"),
        (["--slo-ttft-ms", "soon"], "--slo-ttft-ms: 'soon' is not a number"),
        (["--model", "nope"], "--model: 'nope' is not served; give one of: engine"),
        (["--seed", "-1"], "--seed: '-1' is not a whole number"),
        (["--prompt-tokens", "many"], "--prompt-tokens"),
        (["--chat-share", "101"], "--chat-share: '101' is no percentage"),
        (["--processes", "2", "--master-bind-host", "192.0.2.1"], "--master-bind-port: cannot listen on 192.0.2.1"),
    ],
)
def test_bad_input_ends_with_one_line(engine: str, arguments: list[str], words: str) -> None:
    run = run_locust("--host", engine, *arguments, "-t", "5s")
    assert run.returncode == 2
    found = [line for line in run.stdout.splitlines() if words in line]
    assert len(found) == 1, run.stdout
    assert "Traceback" not in run.stdout


def summary_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return result


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "requests.csv").open(newline="") as file:
        return list(csv.DictReader(file))


SHORT = ("--prompt-tokens", "20", "--output-tokens", "5")
# One token an answer: none can run together while this box stands still, which would make a short run invalid.
SHORTEST = ("--prompt-tokens", "20", "--output-tokens", "1")


def reasons_beside_the_client(summary: dict[str, Any]) -> list[str]:
    """Return why the run is invalid, except that the client, on a busy box, was the bottleneck."""
    return [reason for reason in summary["verdict"]["reasons"] if not reason.startswith("the client was")]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_open_loop_keeps_one_schedule(tmp_path: Path, processes: int) -> None:
    with running_engine("--ttft-ms", "20", "--gap-ms", "5") as url:
        run_locust(
            *("--host", url, "--arrival", "poisson", "--rate", "60", "--max-requests", "240", "--seed", "3"),
            *("-u", "4", "--report-dir", str(tmp_path), *SHORT),
            *(["--processes", str(processes)] if processes > 1 else []),
        )
    rows = sorted(rows_of(tmp_path), key=lambda row: int(row["index"]))
    assert [int(row["index"]) for row in rows] == list(range(240))
    assert len({row["process"] for row in rows}) == processes
    due = [float(row["sent_at"]) - float(row["schedule_delay_ms"]) / 1000 for row in rows]
    wanted = list(itertools.islice(schedule("poisson", rate=60, seed=3), 240))
    differences = [at - want for at, want in zip(due, wanted, strict=True)]
    assert max(differences) - min(differences) < 0.001  # the same start for all, and no due time moved


def test_warm_prefix_cache_makes_run_invalid(tmp_path: Path) -> None:
    with running_engine("--ttft-ms", "5", "--gap-ms", "20") as url:
        once = run_locust("--host", url, "--max-requests", "40", "--seed", "1", "-u", "4", "-r", "4", *SHORTEST)
        again = run_locust(
            *("--host", url, "--max-requests", "40", "--seed", "1", "-u", "4", "-r", "4"),
            *("--report-dir", str(tmp_path), *SHORTEST),
        )
    assert once.returncode == 0, once.stdout
    assert again.returncode == 2
    assert "INVALID RUN" in again.stdout
    (reason,) = summary_of(tmp_path)["verdict"]["reasons"]
    assert "the prefix cache was warm" in reason


def test_missed_slo_ends_with_1(tmp_path: Path) -> None:
    with running_engine("--ttft-ms", "30", "--gap-ms", "20") as url:
        run = run_locust(
            *("--host", url, "--max-requests", "30", "--warmup-requests", "10", "--slo-ttft-ms", "10"),
            *("-u", "4", "-r", "4", "--report-dir", str(tmp_path), *SHORTEST),
        )
    assert run.returncode == 1, run.stdout
    summary = summary_of(tmp_path)
    assert summary["verdict"]["reasons"] == []
    assert (summary["verdict"]["valid"], summary["verdict"]["slo_met"]) == (True, False)
    assert summary["requests"]["total"] == 20
    assert summary["run"]["warmup_requests"] == 10
    assert summary["throughput"]["goodput_requests_per_s"] == 0
    assert summary["server"]["reconciled"] is True
    assert [row["measured"] for row in sorted(rows_of(tmp_path), key=lambda row: int(row["index"]))] == [
        *["0"] * 10,
        *["1"] * 20,
    ]


@pytest.mark.parametrize(
    ("fault", "ended"), [("silent-completions", True), ("silent", False)], ids=["some-hang", "all-hang"]
)
def test_hanging_engine_misses_the_slo(tmp_path: Path, fault: str, ended: bool) -> None:
    with running_engine("--ttft-ms", "20", "--gap-ms", "1", "--fault", fault) as url:
        run = run_locust(
            *("--host", url, "-u", "4", "-r", "4", "-t", "4s", "--slo-ttft-ms", "500"),
            *("--report-dir", str(tmp_path), *SHORTEST),
            *("--seed", "7"),  # of the first four requests, three are chat: by chance, all four may hang
        )
    assert run.returncode == 1, run.stdout
    assert "Valid run, SLO MISSED" in run.stdout
    words = "4 request(s) were cut off by the end of the run after their TTFT or E2E limit had passed"
    assert words in " ".join(run.stdout.split())
    summary = summary_of(tmp_path)
    ok = summary["requests"]["ok"]
    assert (ok > 0) == ended
    assert summary["cut_off_late"] == summary["requests"]["cancelled"] == 4
    assert summary["verdict"]["slo_attainment"] == pytest.approx(ok / (ok + 4))


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]])
def test_full_disk_costs_rows_but_no_figure(tmp_path: Path, processes: list[str]) -> None:
    with running_engine("--ttft-ms", "20", "--gap-ms", "1") as url:
        run = run_locust(
            *("--host", url, "-u", "4", "-r", "4", "--max-requests", "300", "--report-dir", str(tmp_path)),
            *(*SHORT, *processes),
            largest_file=16_000,
        )
    assert run.returncode == 2, run.stdout  # there is no report.html
    assert "Traceback" not in run.stdout
    assert run.stdout.count("end before the run does: File too large; all other") == 1
    assert run.stdout.count("cannot write all of the report") == 1
    assert re.search(r"^Note +requests.csv, and charts", run.stdout, re.MULTILINE)  # under the table of figures
    summary = summary_of(tmp_path)
    assert summary["requests"]["ok"] == 300
    assert len(rows_of(tmp_path)) < 300
    assert {path.name for path in tmp_path.iterdir()} == {"summary.json", "requests.csv"}


def test_other_traffic_makes_run_invalid(tmp_path: Path) -> None:
    with running_engine("--ttft-ms", "5", "--gap-ms", "1") as url:
        command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "--only-summary"]
        command += ["--host", url, "-u", "2", "-r", "2", "-t", "6s", "--report-dir", str(tmp_path), *SHORT]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not list(tmp_path.glob("*.partial")):
                assert process.poll() is None
            body = {"model": "engine", "prompt": "somebody else", "max_tokens": 20}
            until = time.monotonic() + 2
            while time.monotonic() < until:
                requests.post(f"{url}/v1/completions", json=body, timeout=5)
            assert process.wait(timeout=60) == 2
    assert any("somebody else used the server" in reason for reason in summary_of(tmp_path)["verdict"]["reasons"])


def test_engine_gone_at_the_end_makes_run_invalid(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", "--only-summary"]
    with running_engine("--ttft-ms", "20", "--gap-ms", "5") as url:
        command += ["--host", url, "-u", "2", "-r", "2", "-t", "8s", "--report-dir", str(tmp_path), *SHORT]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        partial = tmp_path / "requests.csv.partial"
        wait_until(lambda: partial.exists() and len(partial.read_text().splitlines()) > 4)
    assert process.wait(timeout=60) == 2
    (reason,) = reasons_beside_the_client(summary_of(tmp_path))
    assert "stopped or restarted during the run" in reason


@pytest.mark.parametrize(("lost", "run_time"), [(1, "12s"), (2, "600s")])
def test_killed_workers_are_reported(tmp_path: Path, lost: int, run_time: str) -> None:
    port = free_port()
    common = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py"]
    with running_engine("--ttft-ms", "20", "--gap-ms", "5") as url, contextlib.ExitStack() as stack:
        master = [*common, "--master", "--headless", "--expect-workers", "2", f"--master-bind-port={port}"]
        master += ["--host", url, "-u", "8", "-r", "8", "-t", run_time, "--report-dir", str(tmp_path), *SHORT]
        log = (tmp_path / "log").open("w+")
        stack.callback(log.close)
        leader = stack.enter_context(subprocess.Popen(master, cwd=ROOT, stdout=log, stderr=log))
        worker = [*common, "--worker", "--master-host=127.0.0.1", f"--master-port={port}"]
        quiet: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        workers = [stack.enter_context(subprocess.Popen(worker, **quiet)) for _ in range(2)]
        for process in (leader, *workers):
            stack.callback(process.kill)
        partial = tmp_path / "requests.csv.partial"
        while not (
            partial.exists()
            and len({row["process"] for row in csv.DictReader(partial.open()) if row["reasoning_tokens"]}) > 1
        ):
            assert leader.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        for process in workers[:lost]:
            process.kill()
        assert leader.wait(timeout=60) == 2, (tmp_path / "log").read_text()
    summary = summary_of(tmp_path)
    reasons = summary["verdict"]["reasons"]
    assert any("was lost" in reason and "under way" in reason for reason in reasons), reasons
    assert summary["requests"]["ok"] > (100 if lost == 1 else 8)
    server, ours = summary["server"]["generation_tokens"], summary["server"]["client_generation_tokens"]
    assert ours <= server  # what the lost worker had not reported is missing, nothing is counted twice


def test_page_refuses_bad_form_and_shows_run(tmp_path: Path) -> None:
    port = free_port()
    root = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", f"--web-port={port}"]
    command += ["--web-host=127.0.0.1", "--report-dir", str(tmp_path)]
    environment = {**os.environ, "VLLM_API_KEY": "very-secret"}
    form = {"user_count": 4, "spawn_rate": 4, "prompt_tokens": "20", "output_tokens": "5", "stream": "true"}
    with (
        running_engine("--ttft-ms", "20", "--gap-ms", "5", "--api-key", "very-secret") as url,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process,
    ):
        try:
            wait_until(lambda: requests.get(root, timeout=5).ok)
            assert "very-secret" not in requests.get(root, timeout=5).text
            for bad, words in (
                ({"slo_ttft_ms": "soon"}, "--slo-ttft-ms"),
                ({"arrival": "poisson"}, "--rate"),
                ({"model": "nope"}, "--model"),
                ({"host": "http://127.0.0.1:1"}, "--host"),
            ):
                answer = requests.post(f"{root}/swarm", data={**form, "host": url, **bad}, timeout=30).json()
                assert (answer["success"], words in answer["message"]) == (False, True), answer
            good = {**form, "host": url, "slo_ttft_ms": "500", "endpoint": "chat"}
            assert requests.post(f"{root}/swarm", data=good, timeout=30).json()["success"]
            wait_until(lambda: "loadtest_goodput_requests_total{" in requests.get(f"{root}/metrics", timeout=5).text)

            def rows() -> list[dict[str, Any]]:
                report = requests.get(f"{root}/stats/requests", timeout=5).json()
                return list(report["extended_stats"][0]["data"])

            wait_until(lambda: bool(rows()) and int(rows()[0]["requests"]) > 10)
            assert rows()[0]["endpoint"] == "chat"
            assert float(rows()[0]["goodput"]) > 0
            requests.post(f"{root}/stop", timeout=60)
            wait_until(lambda: bool(list(tmp_path.glob("*/summary.json"))))
        finally:
            process.terminate()
            process.wait(timeout=30)
    assert "very-secret" not in "".join(path.read_text() for path in tmp_path.glob("*/*"))


def wait_until(met: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(requests.ConnectionError):
            if met():
                return
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.1)


@contextlib.contextmanager
def page_with_workers(url: str, reports: Path, count: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Run Locust's page with `count` workers, as the stack does; yields its address, and master and workers."""
    port, web_port = free_port(), free_port()
    common = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py"]
    master = [*common, "--master", f"--master-bind-port={port}", f"--web-port={web_port}", "--web-host=127.0.0.1"]
    worker = [*common, "--worker", "--master-host=127.0.0.1", f"--master-port={port}"]
    quiet: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(subprocess.Popen([*master, f"--report-dir={reports}"], **quiet))]
        processes += [stack.enter_context(subprocess.Popen(worker, **quiet)) for _ in range(count)]
        for process in processes:
            stack.callback(process.kill)
        root = f"http://127.0.0.1:{web_port}"
        wait_until(lambda: len(requests.get(f"{root}/stats/requests", timeout=5).json()["workers"]) == count)
        form = {"user_count": 8, "spawn_rate": 8, "prompt_tokens": "20", "output_tokens": "20", "host": url}
        assert requests.post(f"{root}/swarm", data=form, timeout=30).json()["success"]
        wait_until(lambda: requests.get(f"{root}/stats/requests", timeout=5).json()["total_rps"] > 0)
        yield root, processes


def test_stopping_everything_loses_nothing(tmp_path: Path) -> None:
    with (
        running_engine("--ttft-ms", "20", "--gap-ms", "5") as url,
        page_with_workers(url, tmp_path, 2) as (root, (master, *workers)),
    ):
        # The order of `docker compose stop`: first those that depend on others.
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(timeout=20)
        as_prometheus = {"User-Agent": "Prometheus/3.5.3"}
        requests.get(f"{root}/metrics", headers=as_prometheus, timeout=5)
        master.terminate()
        wait_until(lambda: bool(list(tmp_path.glob("*/summary.json"))))
        # It waits for Prometheus, as one has come before, and has the last numbers for it.
        last = requests.get(f"{root}/metrics", headers=as_prometheus, timeout=5).text
        assert master.wait(timeout=90) is not None
    (folder,) = tmp_path.glob("*/")
    summary = summary_of(folder)
    assert (folder / "report.html").exists()
    assert reasons_beside_the_client(summary) == []
    assert summary["requests"]["ok"] == len([row for row in rows_of(folder) if row["outcome"] == "ok"]) > 8
    in_prometheus = re.findall(r'^loadtest_requests_total{.*outcome="ok".*} (\S+)', last, re.MULTILINE)
    assert sum(map(float, in_prometheus)) == summary["requests"]["ok"]
    # All that the engine counted has arrived: at most what the stop cut off is the engine's alone.
    cut = summary["requests"]["cancelled"]
    surplus = summary["server"]["generation_tokens"] - summary["server"]["client_generation_tokens"]
    assert cut <= 8
    assert 0 <= surplus <= cut * 20


def test_late_report_does_not_end_next_run(tmp_path: Path) -> None:
    def reports() -> list[Path]:
        return list(tmp_path.glob("*/summary.json"))

    with (
        running_engine("--ttft-ms", "20", "--gap-ms", "5") as url,
        page_with_workers(url, tmp_path, 1) as (root, (_, worker)),
    ):
        requests.post(f"{root}/stop", timeout=60)
        wait_until(lambda: len(reports()) == 1)
        form = {"user_count": 8, "spawn_rate": 8, "host": url, "max_requests": "40"}
        assert requests.post(f"{root}/swarm", data=form, timeout=30).json()["success"]
        wait_until(lambda: len(reports()) == 2)
        # Its next report, that all has ended, comes late: only then does it receive the new run.
        worker.send_signal(signal.SIGSTOP)
        assert requests.post(f"{root}/swarm", data={**form, "max_requests": "200"}, timeout=30).json()["success"]
        time.sleep(1.5)
        worker.send_signal(signal.SIGCONT)
        wait_until(lambda: len(reports()) == 3)
    counts = [summary_of(path.parent)["requests"] for path in sorted(reports(), key=lambda path: path.stat().st_mtime)]
    assert counts[1]["ok"] == 40
    assert counts[2]["ok"] == counts[2]["total"] == 200


def test_stopped_worker_hands_over_its_totals(tmp_path: Path) -> None:
    with (
        running_engine("--ttft-ms", "20", "--gap-ms", "5") as url,
        page_with_workers(url, tmp_path, 2) as (root, (_, worker, _other)),
    ):
        worker.terminate()
        worker.wait(timeout=20)
        time.sleep(6)  # longer than a stop of everything takes
        requests.post(f"{root}/stop", timeout=60)
        wait_until(lambda: bool(list(tmp_path.glob("*/summary.json"))))
    (folder,) = tmp_path.glob("*/")
    (reason,) = reasons_beside_the_client(summary_of(folder))
    assert "was told to end" in reason
    assert summary_of(folder)["server"]["reconciled"]


# A host whose clock is wrong by `AHEAD_S`, kernel stamps and all.
AHEAD_S = 1000
WRONG_CLOCK = f"""
import locust.main, time
real, real_ns = time.time, time.time_ns
time.time, time.time_ns = lambda: real() + {AHEAD_S}, lambda: real_ns() + {AHEAD_S} * 10**9
from loadtest.client import clock
stamp, offset = clock.kernel_stamp, clock.offset_ns
clock.kernel_stamp = lambda data: (at := stamp(data)) and at + {AHEAD_S} * 10**9
# The compiled receive loop stamps by itself, and adds this.
clock.offset_ns = lambda: offset() + {AHEAD_S} * 10**9
locust.main.main()
"""


def run_with_a_wrong_clock(folder: Path, *arguments: str) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Send 60 requests by two workers, one of them on such a host; return their rows in order, and the summary."""
    port = free_port()
    with running_engine("--ttft-ms", "20", "--gap-ms", "5") as url:
        common = ["-f", "loadtest/locustfile.py", "--host", url, *SHORT]
        worker = ["--worker", "--master-host=127.0.0.1", f"--master-port={port}"]
        workers = [
            subprocess.Popen([sys.executable, *start, *common, *worker], cwd=ROOT, stderr=subprocess.DEVNULL)
            for start in (["-m", "locust"], ["-c", WRONG_CLOCK])
        ]
        try:
            run = run_locust(
                *("--master", "--expect-workers", "2", f"--master-bind-port={port}", "--host", url),
                *("--max-requests", "60", "-u", "2", "--report-dir", str(folder), *SHORT, *arguments),
            )
        finally:
            for process in workers:
                process.terminate()
                process.wait(timeout=20)
    rows = sorted(rows_of(folder), key=lambda row: int(row["index"]))
    assert [row["outcome"] for row in rows] == ["ok"] * 60, run.stdout
    assert len({row["process"] for row in rows}) == 2
    assert all(0 < float(row["ttft_ms"]) < 5000 for row in rows)
    return rows, summary_of(folder)


def test_wrong_clock_keeps_the_schedule(tmp_path: Path) -> None:
    rows, summary = run_with_a_wrong_clock(tmp_path, "--arrival", "constant", "--rate", "20")
    # Both send at the same moments of one clock, as well as a busy box keeps them.
    moments = [float(row["sent_at"]) - int(row["index"]) / 20 for row in rows]
    assert max(moments) - min(moments) < AHEAD_S / 100
    assert 2.9 < summary["run"]["duration_s"] < AHEAD_S / 10


def test_wrong_clock_users_wait_for_its_sync(tmp_path: Path) -> None:
    rows, summary = run_with_a_wrong_clock(tmp_path, "-r", "2")
    sent = [float(row["sent_at"]) for row in rows]
    assert max(sent) - min(sent) < 60
    assert summary["run"]["duration_s"] < 60


def test_open_loop_waits_for_its_last_answer(tmp_path: Path) -> None:
    # Longer than a report takes to tell the end.
    with running_engine("--ttft-ms", "3000", "--gap-ms", "5") as url:
        run = run_locust(
            *("--host", url, "--arrival", "constant", "--rate", "1", "--max-requests", "1", "-u", "1"),
            *("--report-dir", str(tmp_path), *SHORT),
        )
    counts = summary_of(tmp_path)["requests"]
    assert (counts["ok"], counts["cancelled"]) == (1, 0), run.stdout


def test_worker_without_users_is_refused(engine: str) -> None:
    run = run_locust("--host", engine, "--processes", "2", "-u", "1", "--max-requests", "4", *SHORT)
    assert run.returncode == 2
    assert "--max-requests: 1 users leave some of 2 workers without one" in run.stdout


# A host that is slow between connecting to the master and loading the load test's hooks.
SLOW_TO_LISTEN = """
import gevent, locust.main
from locust.env import Environment
create = Environment.create_worker_runner
def slowly(self, *args):
    runner = create(self, *args)
    gevent.sleep(1)
    return runner
Environment.create_worker_runner = slowly
locust.main.main()
"""


def test_slow_worker_still_sends_its_share(tmp_path: Path) -> None:
    port = free_port()
    start = ["-f", "loadtest/locustfile.py"]
    worker = [sys.executable, "-c", SLOW_TO_LISTEN, *start, "--worker", f"--master-port={port}"]
    with running_engine("--ttft-ms", "20", "--gap-ms", "5") as url, subprocess.Popen(worker, cwd=ROOT) as process:
        try:
            run = run_locust(
                *("--master", "--expect-workers", "1", f"--master-bind-port={port}", "--host", url, "-t", "20s"),
                *("--max-requests", "20", "-u", "2", "--report-dir", str(tmp_path), *SHORT),
            )
        finally:
            process.terminate()
    assert summary_of(tmp_path)["requests"]["ok"] == 20, run.stdout


# A host on which a file of the workload is not there.
CANNOT_PREPARE = """
import locust.main
from loadtest.input_error import InputError
from loadtest.workload import Workload
def load(settings):
    raise InputError("--dataset", "it is not on this host", "copy it there")
Workload.load = load
locust.main.main()
"""


def test_unprepared_worker_ends_a_search(tmp_path: Path) -> None:
    with (
        running_engine("--ttft-ms", "20", "--gap-ms", "5") as url,
        page_with_workers(url, tmp_path, 1) as (root, (master, _)),
    ):
        requests.post(f"{root}/stop", timeout=60)
        wait_until(lambda: bool(list(tmp_path.glob("*/summary.json"))))
        arguments = cast("list[str]", master.args)
        (port,) = (part.split("=")[1] for part in arguments if "--master-bind-port=" in part)

        def begun_and_over() -> bool:
            metrics = requests.get(f"{root}/metrics", timeout=5).text
            begun = "headroom_capacity_search_stages" in metrics
            return begun and "headroom_capacity_search_running 0.0" in metrics

        with subprocess.Popen(
            [sys.executable, "-c", CANNOT_PREPARE, "-f", "loadtest/locustfile.py", "--worker", f"--master-port={port}"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as broken:
            try:
                wait_until(lambda: len(page_of(root)["workers"]) == 2)
                form = {"user_count": 8, "spawn_rate": 8, "prompt_tokens": "20", "output_tokens": "20", "host": url}
                search = {**form, "find_capacity": "true", "slo_ttft_ms": "500"}
                assert requests.post(f"{root}/swarm", data=search, timeout=30).json()["success"]
                wait_until(begun_and_over)
            finally:
                broken.kill()
    assert len(list(tmp_path.iterdir())) == 1  # the search has left nothing


def test_unprepared_joining_worker_ends_a_run(tmp_path: Path) -> None:
    port = free_port()
    start = ["-f", "loadtest/locustfile.py"]
    quiet: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with running_engine("--ttft-ms", "20", "--gap-ms", "5") as url, contextlib.ExitStack() as stack:
        master = [*start, "--master", "--headless", "--enable-rebalancing", "--expect-workers", "1"]
        master += [f"--master-bind-port={port}", "-u", "4", "-r", "4", "-t", "60s"]
        master += ["--host", url, "--report-dir", str(tmp_path), *SHORT]
        worker = [*start, "--worker", f"--master-port={port}"]

        def begin(*how: str) -> subprocess.Popen[bytes]:
            process = stack.enter_context(subprocess.Popen([sys.executable, *how], **quiet))
            stack.callback(process.kill)
            return process

        leader = begin("-m", "locust", *master)
        begin("-m", "locust", *worker)
        partial = tmp_path / "requests.csv.partial"
        wait_until(lambda: partial.exists() and len(partial.read_text().splitlines()) > 10)
        begin("-c", CANNOT_PREPARE, *worker)
        assert leader.wait(timeout=50) == 2
    summary = summary_of(tmp_path)
    assert any("--dataset: it is not on this host" in reason for reason in summary["verdict"]["reasons"])
    assert summary["requests"]["ok"] > 8


def page_of(root: str) -> dict[str, Any]:
    result: dict[str, Any] = requests.get(f"{root}/stats/requests", timeout=5).json()
    return result
