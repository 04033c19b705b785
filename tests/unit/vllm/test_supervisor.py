"""The supervisor: output, stop signals, failed starts, failures in service."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

# After a reboot Docker does not restart an `on-failure` container that ended with 0.
STOPPED = 128 + signal.SIGTERM
ENGINE = Path(__file__).parents[3] / "docker" / "vllm"

# The supervisor with a program in place of the engine, short times, and files in `folder` only.
WRAPPER = """
import sys, pathlib
import api_client, state_files, engine_processes, supervisor, watchdog
program, folder, port = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
backoff_s, limit_s = map(float, sys.argv[4:])
api_client.SERVER = "http://127.0.0.1:" + port
for name in ("ANSWERED", "WARMING_UP", "STALLED", "STOPPING"):
    setattr(state_files, name, folder / name.lower())
supervisor.SHARED_MEMORY = folder / "shm"
supervisor.BACKOFF_S = backoff_s
watchdog.INTERVAL_S = watchdog.READY_INTERVAL_S = 0.1
supervisor.DRAIN_S, supervisor.LAST_SCRAPE_S, supervisor.END_S = 10.0, 10.0, 2.0
watchdog.ANSWER_TIMEOUT_S = 3.0
watch = supervisor.Watch(model="m", limit_s=limit_s, restart=True, cpu_counts=True)
class Registration:
    def join(self):
        print("router: join", flush=True)
    def leave(self, await_last):
        print(f"router: leave, await_last={await_last}, stopping={state_files.STOPPING.exists()}", flush=True)
sys.exit(supervisor.Supervisor(watch, Registration()).run(lambda: [sys.executable, "-uc", program, str(folder), port]))
"""

# An engine that answers /health, requests for tokens, unless folder/compiles exists, and /metrics, with the content of
# folder/metrics. It prints "watched" at the watchdog's first read, when the engine is ready.
SERVER = """
import http.server, os, pathlib, signal, sys, threading, time
folder, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
starts = folder / "starts"
starts.write_text(str(int(starts.read_text()) + 1 if starts.exists() else 1))
watched = threading.Event()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/metrics":
            self.wfile.write((folder / "metrics").read_bytes())
            if not watched.is_set():
                watched.set()
                print("watched", starts.read_text())
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        while (folder / "compiles").exists():
            time.sleep(0.05)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
signal.signal(signal.SIGTERM, lambda *_: (print("asked to end"), os._exit(0)))
print("ready", starts.read_text())
server.serve_forever()
"""
IDLE = 'vllm:iteration_tokens_total_count{engine="0"} 5\nvllm:num_requests_running{engine="0"} 0\n'
STUCK = IDLE.replace("} 0", "} 2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shm").mkdir()
    (tmp_path / "metrics").write_text(IDLE)
    return tmp_path


def report(folder: Path, metrics: str) -> None:
    """Change the engine's metrics, atomically."""
    (folder / "next").write_text(metrics)
    (folder / "next").replace(folder / "metrics")


class Life:
    """One running supervisor."""

    def __init__(self, program: str, folder: Path, *, backoff_s: float = 0.1, limit_s: float = 3.0) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, "-uc", WRAPPER, program, str(folder), str(port), str(backoff_s), str(limit_s)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ENGINE)},
        )
        self.output = ""

    def read_until(self, pattern: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if re.search(pattern, line):
                return
        pytest.fail(f"{pattern!r} never came:\n{self.output}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        assert self.process.stdout is not None
        self.output += self.process.stdout.read()
        return self.process.wait(timeout=20)


WAIT_FOR_STOP = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("ending"), sys.exit(0)))
print("loading")
while True: time.sleep(0.1)
"""


def test_stop_while_loading_is_no_failure(folder: Path) -> None:
    life = Life(WAIT_FOR_STOP, folder)
    life.read_until("loading")
    life.stop()
    assert life.end() == STOPPED
    assert "ending" in life.output
    assert "headroom:" not in life.output
    assert "router: leave, await_last=False" in life.output  # never joined: no request can be on its way


def test_router_is_left_before_the_stop(folder: Path) -> None:
    life = Life(SERVER, folder)
    life.read_until("watched 1")
    os.kill(child_of(life), signal.SIGKILL)
    life.read_until("watched 2")
    life.stop()
    assert life.end() == STOPPED
    told = re.findall("router: (.+)", life.output)
    assert told == [
        *("join", "leave, await_last=False, stopping=False"),
        *("join", "leave, await_last=True, stopping=False"),
    ]


def test_failed_start_is_explained(folder: Path) -> None:
    life = Life("import sys; sys.exit('vllm: error: unrecognized arguments: --nope')", folder)
    # Standard error is forwarded too.
    assert life.end() == 1
    assert "vllm: error: unrecognized" in life.output
    assert life.output.splitlines()[-1].startswith("headroom: VLLM_EXTRA_ARGS")


def test_exit_code_0_is_a_failure(folder: Path) -> None:
    life = Life("print('bye')", folder)
    assert life.end() == 1
    assert life.output.splitlines()[-1].startswith("headroom: the engine stopped")


def test_killed_start_has_shell_exit_code(folder: Path) -> None:
    life = Life("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", folder)
    assert life.end() == 128 + signal.SIGKILL
    assert "memory ran out" in life.output


def test_orphaned_processes_are_killed(folder: Path) -> None:
    program = (
        "import os, subprocess, signal; print('child', subprocess.Popen(['sleep', '60']).pid);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    life = Life(program, folder)
    assert life.end() == 128 + signal.SIGKILL
    found = re.search(r"child (\d+)", life.output)
    assert found
    stat = Path(f"/proc/{found[1]}/stat")
    assert not stat.exists() or stat.read_text().rsplit(") ", 1)[1].startswith("Z")


def test_crash_in_service_restarts_in_place(folder: Path) -> None:
    life = Life(SERVER, folder)
    life.read_until("watched 1")
    (folder / "shm" / "psm_1").touch()
    while not (folder / "answered").exists():
        assert life.process.poll() is None
        time.sleep(0.01)
    (folder / "compiles").touch()
    os.kill(child_of(life), signal.SIGKILL)
    life.read_until("ready 2")
    assert list((folder / "shm").iterdir()) == []
    assert not (folder / "answered").exists()  # not healthy before it is warmed up again
    life.stop()
    assert life.end() == STOPPED


def test_stalled_engine_is_restarted(folder: Path) -> None:
    # Late polls must still see the suspicion, which the next start clears: no immediate restart.
    life = Life(SERVER, folder, backoff_s=3)
    life.read_until("watched 1")
    report(folder, STUCK)
    life.read_until("holds 2 requests and has made no step")
    assert (folder / "stalled").exists()  # the health check reported it before
    report(folder, IDLE)
    life.read_until("ready 2")
    assert "memory ran out" not in life.output
    life.stop()
    assert life.end() == STOPPED


def test_frozen_process_is_named(folder: Path) -> None:
    life = Life(SERVER, folder)
    life.read_until("watched 1")
    os.kill(child_of(life), signal.SIGSTOP)
    life.read_until("API server has not answered .* is stopped")
    life.read_until("ready 2")
    life.stop()
    assert life.end() == STOPPED


def test_stop_waits_for_requests_and_scrape(folder: Path) -> None:
    (folder / "metrics").write_text(IDLE + "headroom_engine_requests_in_flight 1\n")
    life = Life(SERVER, folder)
    life.read_until("watched 1")
    life.stop()
    life.read_until("no new requests")
    assert (folder / "stopping").exists()
    time.sleep(1)
    assert life.process.poll() is None
    report(folder, IDLE + "headroom_engine_requests_unscraped 1\n")
    time.sleep(0.5)
    assert life.process.poll() is None
    begun = time.monotonic()
    report(folder, IDLE)
    assert life.end() == STOPPED
    assert "asked to end" in life.output
    assert time.monotonic() - begun < 5


def test_second_stop_ends_at_once(folder: Path) -> None:
    (folder / "metrics").write_text(IDLE + "headroom_engine_requests_in_flight 1\n")
    life = Life(SERVER, folder)
    life.read_until("watched 1")
    life.stop()
    life.read_until("no new requests")
    begun = time.monotonic()
    life.stop()
    assert life.end() == STOPPED
    assert time.monotonic() - begun < 5
    assert "asked to end" not in life.output


def child_of(life: Life) -> int:
    """Pid of the program in place of the engine."""
    children = Path(f"/proc/{life.process.pid}/task/{life.process.pid}/children").read_text()
    return int(children.split()[0])


def test_wrong_setting_ends_the_container() -> None:
    done = subprocess.run(
        [sys.executable, str(ENGINE / "serve.py")],
        env={**os.environ, "MODEL_ID": "some/model", "DTYPE": "int4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout.startswith("headroom: DTYPE=int4")
    assert done.stdout.count("\n") == 1
