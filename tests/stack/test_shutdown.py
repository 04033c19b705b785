"""The whole stack is stopped while it works: running requests end whole, new ones are refused, nothing is lost.

The last file of this folder: it leaves the stack down, so that no start of the engine is only for others.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest
from drills.load_run import LoadTestRun, reports
from drills.stack import RunningStack
from drills.users import Streams, ask

from tests.rig.running_stack import START_TIMEOUT_S, wait_for

if TYPE_CHECKING:
    from tests.rig.running_stack import Stack

# They end within the engine's 30 s, beside the load test on a slow box's cores.
STREAMS, STREAM_TOKENS = 4, 80
TOKENS = "sum(last_over_time(vllm:generation_tokens_total[5m]))"
# compose.yaml's longest grace periods one after the other: the load test's worker and master, or the engine.
STOPPED_WITHIN_S = 100
# Killed at once, well before the engine's 45 s; a busy box's Docker takes many seconds for all containers.
KILLED_WITHIN_S = 30
LONG_TOKENS = 1800
KILLED = 128 + 9
CTRL_C = b"\x03"


@pytest.mark.timeout(400)
def test_stop_under_load_loses_nothing(stack: Stack) -> None:
    running = RunningStack(stack.project)
    known = set(reports(running))
    before = running.value("sum(vllm:generation_tokens_total)") or 0.0
    load = LoadTestRun(running, users=4, run_time="10m")
    load.wait_until_busy()
    streams = Streams(running, STREAMS, STREAM_TOKENS)
    wait_for("the streams begin", lambda: len(streams.begun) == STREAMS, 60)
    url = f"{running.url('vllm', 8000)}/v1/completions"
    body: dict[str, object] = {"model": running.model(), "prompt": "and you?", "max_tokens": 1}
    begun = time.monotonic()
    stopper = threading.Thread(target=stack.compose, args=("stop",))
    stopper.start()
    answers: Counter[str] = Counter()
    while stopper.is_alive():
        answers[ask(url, body, {}, 30)] += 1
        time.sleep(0.3)
    took_s = time.monotonic() - begun
    assert streams.ended(5) == {"whole": STREAMS}
    assert answers["503 with Retry-After"], answers
    assert took_s < STOPPED_WITHIN_S
    ended_at = time.time()
    print(f"stopped in {took_s:.0f} s; new requests: {dict(answers)}")

    stack.compose("up", "-d", "--wait", "--no-deps", "prometheus", "locust")
    (report,) = set(reports(running)) - known
    summary = json.loads(running.shell("locust", f"cat {report}"))
    print(f"the load test's report: {summary['requests']}, {summary['verdict']}, {summary['server']}")
    assert summary["requests"]["ok"] >= 16
    files = running.shell("locust", f"ls {PurePosixPath(report).parent}").split()
    assert {"report.html", "requests.csv"} <= set(files), files
    recorded = (running.value(TOKENS, ended_at) or 0.0) - before
    print(f"Prometheus recorded {recorded:.0f} more tokens; the streams had {STREAMS * STREAM_TOKENS}")
    assert recorded >= STREAMS * STREAM_TOKENS + summary["server"]["client_generation_tokens"]


class Terminal:
    """`docker compose up` in the foreground of a terminal of its own, as a person runs it."""

    def __init__(self, stack: Stack) -> None:
        """Start it."""
        self._keys, screen = os.openpty()
        self.text = ""
        # setsid makes the terminal the process's own: only so do its keys become signals.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *stack.command("up")],
            cwd=stack.folder,
            env=stack.environment(TERM="xterm"),
            stdin=screen,
            stdout=screen,
            stderr=screen,
        )
        os.close(screen)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # Reading fails when the terminal's last process has ended.
        with contextlib.suppress(OSError):
            while data := os.read(self._keys, 65536):
                self.text += data.decode(errors="replace")

    def press(self, keys: bytes) -> None:
        os.write(self._keys, keys)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(timeout=10)
        os.close(self._keys)


# Engine starts: one, as the test before has stopped it.
@pytest.mark.timeout(400)
def test_second_ctrl_c_kills_at_once(stack: Stack) -> None:
    running = RunningStack(stack.project)
    terminal = Terminal(stack)
    try:
        wait_for("compose follows the stack", lambda: "Attaching to" in terminal.text, 60)
        wait_for("the engine answers", lambda: stack.chat("Hello."), START_TIMEOUT_S)
        streams = Streams(running, STREAMS, LONG_TOKENS)
        wait_for("the streams begin", lambda: len(streams.begun) == STREAMS, 60)
        url = f"{running.url('vllm', 8000)}/v1/completions"
        body: dict[str, object] = {"model": running.model(), "prompt": "and you?", "max_tokens": 1}
        terminal.press(CTRL_C)
        wait_for("new requests are refused", lambda: ask(url, body, {}, 30) == "503 with Retry-After", 30)
        assert streams.ended(0) == {"open": STREAMS}
        begun = time.monotonic()
        terminal.press(CTRL_C)
        terminal.process.wait(timeout=STOPPED_WITHIN_S)
        took_s = time.monotonic() - begun
    finally:
        terminal.close()
    print(f"{terminal.text}\nended {took_s:.1f} s after the second Ctrl-C")
    assert took_s < KILLED_WITHIN_S
    assert streams.ended(5) == {"truncated": STREAMS}

    def nothing_runs() -> bool:
        return all(one.status != "running" for one in running.containers())

    # Compose does not wait until what it has killed is gone.
    wait_for("nothing runs", nothing_runs, KILLED_WITHIN_S - took_s)
    assert running.state("vllm")["ExitCode"] == KILLED
