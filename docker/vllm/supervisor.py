"""Runs vLLM as a child: forwards its output, stops it gracefully, and restarts it after a failure in service.

Docker's `restart: on-failure:5` counts over a container's whole life, so it is left to failed starts, such as a wrong
flag. An engine that was ready and then crashed or hung is restarted here, without a limit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import api_client
import engine_processes
import state_files
from failure_causes import explain
from watchdog import EngineProgress, Watchdog, say

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from router_registration import Registration

TAIL_LINES = 400  # more than the tracebacks of three processes
LAST_LINES_S = 2.0  # for the last output of an ended process
# compose.yaml's stop_grace_period is a little more than the sum.
DRAIN_S = 30.0
# For Prometheus to scrape the last requests: its interval, and time to answer.
LAST_SCRAPE_S = 7.0
END_S = 5.0
KILLED_S = 30.0  # after SIGKILL; a process in a broken driver may never end
# Pause before a restart: doubled each time, reset after GOOD_SERVICE_S of service.
BACKOFF_S, BACKOFF_MOST_S, GOOD_SERVICE_S = 1.0, 60.0, 600.0
# Not 0: after a reboot Docker starts `on-failure` containers again only if they ended in failure.
STOPPED = 128 + signal.SIGTERM
GATE = Path(__file__).parent / "gate"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # the container's own


@dataclass(frozen=True)
class Watch:
    """Settings of the watchdog: `limit_s` seconds without progress end the engine if `restart` is set."""

    model: str
    limit_s: float
    restart: bool
    cpu_counts: bool


class Supervisor:
    """Runs and restarts the engine of this container."""

    def __init__(self, watch: Watch | None, registration: Registration | None = None) -> None:
        """Install the stop signals' handlers; without `watch` the engine is neither watched nor restarted.

        `registration`: the engine is one of several behind a router.
        """
        self._watch = watch
        self._registration = registration
        self._stop = threading.Event()
        self._group: int | None = None
        self._stalled = False
        signal.signal(signal.SIGTERM, self._on_stop_signal)
        signal.signal(signal.SIGINT, self._on_stop_signal)

    def _on_stop_signal(self, _signum: int, _frame: FrameType | None) -> None:
        if self._stop.is_set() and self._group is not None:
            # Second signal: end at once.
            _kill(self._group)
        self._stop.set()

    def run(self, make_command: Callable[[], list[str]]) -> int:
        """Run the engine until it is stopped or cannot start; return the container's exit code.

        `make_command` is called before each start; its errors pass through.
        """
        backoff_s = BACKOFF_S
        while True:
            state_files.clear()
            if self._watch is not None:
                state_files.WARMING_UP.write_text("it has not answered yet")  # until warm_up.py has ended
            begun = time.monotonic()
            code, was_ready = self._run_once(make_command())
            if self._stop.is_set() or not was_ready:
                return code
            if time.monotonic() - begun > GOOD_SERVICE_S:
                backoff_s = BACKOFF_S
            say(f"the engine starts again in {backoff_s:g} s")
            if self._stop.wait(backoff_s):
                return STOPPED
            backoff_s = min(2 * backoff_s, BACKOFF_MOST_S)

    def _run_once(self, command: list[str]) -> tuple[int, bool]:
        """Run the engine once; return its exit code and whether it had been ready."""
        path = os.pathsep.join(filter(None, [str(GATE), os.environ.get("PYTHONPATH")]))
        child = subprocess.Popen(  # noqa: S603  # the command is built from checked settings
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
            env={**os.environ, "PYTHONPATH": path},
            # A process group of its own, so that all its processes can be killed.
            start_new_session=True,
        )
        self._group, self._stalled = child.pid, False
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        reader = threading.Thread(target=_pass_through, args=(child.stdout, tail), daemon=True)
        reader.start()
        watchdog = self._watch_over(child.pid)
        if self._registration is not None:
            self._registration.join()
        while child.poll() is None and not self._stop.wait(0.1):
            pass
        if watchdog is not None:
            watchdog.close()
        was_ready = watchdog is not None and watchdog.ready
        if self._registration is not None:
            # Stopping or ended: the router must send no more requests.
            self._registration.leave(await_last=self._stop.is_set() and was_ready)
        if self._stop.is_set():
            _stop_gently(child, drain=was_ready)
        code = child.wait()
        left = engine_processes.kill_group(child.pid, KILLED_S)
        self._group = None
        # With a timeout: another process may still hold the output open.
        reader.join(timeout=LAST_LINES_S)
        if left:
            names = ", ".join(process.name for process in left)
            say(f"{names} cannot be ended: a device or its driver hangs; restart the box")
            return code or 1, False
        if self._stop.is_set():
            return STOPPED, was_ready
        _forget_shared_memory()
        if not self._stalled:
            # A server that ends by itself has failed, whatever its exit code.
            say(explain("".join(tail), code))
        return 128 - code if code < 0 else code or 1, was_ready

    def _watch_over(self, group: int) -> Watchdog | None:
        if self._watch is None:
            return None

        def end(reason: str) -> None:
            say(f"{reason}: it is ended")
            self._stalled = True
            _kill(group)

        progress = EngineProgress(self._watch.limit_s, self._watch.cpu_counts)
        return Watchdog(group, self._watch.model, progress, end if self._watch.restart else None)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.killpg(group, signal.SIGKILL)


def _pass_through(output: IO[str] | None, tail: deque[str]) -> None:
    for line in output or ():
        sys.stdout.write(line)
        sys.stdout.flush()
        tail.append(line)


def _stop_gently(child: subprocess.Popen[str], *, drain: bool) -> None:
    """Let running requests end and be scraped, then end the engine."""
    if drain:
        state_files.STOPPING.touch()
        say(f"stopping: no new requests; what runs has {DRAIN_S:g} s")
        _wait_for(child, DRAIN_S, lambda metrics: metrics.in_flight == 0)
        _wait_for(child, LAST_SCRAPE_S, lambda metrics: metrics.unscraped == 0)
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        say("the engine did not end by itself")
        engine_processes.kill_group(child.pid, KILLED_S)


def _wait_for(
    child: subprocess.Popen[str], timeout_s: float, reached: Callable[[api_client.EngineMetrics], bool]
) -> None:
    """Poll the API server's metrics until `reached`, the child's end, or the timeout."""
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0 and child.poll() is None:
        try:
            if reached(api_client.parse_metrics(api_client.request("/metrics", timeout_s=left_s))):
                return
        except (OSError, ValueError):
            pass  # busy or hung: the timeout decides
        time.sleep(0.2)


def _forget_shared_memory() -> None:
    """Delete shared memory of killed processes; nothing else uses this container's."""
    for segment in SHARED_MEMORY.iterdir():
        if segment.is_file() and segment.stat().st_uid == os.getuid():
            segment.unlink()
