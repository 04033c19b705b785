"""Watchdog: detects a stalled engine, as opposed to a busy one, and ends it; the supervisor then restarts it.

/health checks the API server alone and misses a hung engine. An engine is stalled when it has work and reports no step;
work is a request, or one token that the watchdog asks for after a quiet time (the canary). A saturated engine takes
steps all the time, however long its queue is.

On a CPU one step may take minutes (long prompt, large model, other programs), so the limit is ten times as long while
the engine uses the CPU. On a GPU CPU time means nothing, because the driver waits by spinning. It is ten times as long
during the warm-up too, which compiles.
"""

from __future__ import annotations

import threading
import time
import urllib.error
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import api_client
import engine_processes
import state_files
import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S = 5.0
READY_INTERVAL_S = 1.0
ANSWER_TIMEOUT_S = 10.0
# Quiet time before a canary; shorter when a request waits that the engine does not report.
CANARY_IDLE_S = 300.0
CANARY_WAITING_S = 10.0
# Factor on the limit while the engine computes (CPU) or the API server is busy.
BUSY_FACTOR = 10
# Share of a core above which a process counts as computing; an idle engine uses none.
COMPUTING = 0.1


@dataclass(frozen=True)
class Sample:
    """One observation; `metrics` is None when the API server did not answer."""

    metrics: api_client.EngineMetrics | None
    engine_cpu_s: float
    api_cpu_s: float


@dataclass
class Clock:
    """Seconds for which an engine or the API server had work and made no progress.

    `still_s` excludes time in which it computed, `silent_s` does not.
    """

    still_s: float = 0.0
    silent_s: float = 0.0

    def add(self, elapsed_s: float, *, computing: bool) -> None:
        """Add an interval without progress."""
        self.silent_s += elapsed_s
        self.still_s = 0.0 if computing else self.still_s + elapsed_s

    def over(self, limit_s: float) -> bool:
        """Return whether a limit is exceeded."""
        return self.still_s >= limit_s or self.silent_s >= BUSY_FACTOR * limit_s


@dataclass
class EngineProgress:
    """Progress of the engines and their API server, from successive samples.

    `idle_s`: seconds without a step of any engine, with or without work; `held`: requests that the engines report.
    """

    limit_s: float
    cpu_counts: bool
    canary_pending: bool = False
    idle_s: float = 0.0
    held: float = 0.0
    _clocks: dict[str, Clock] = field(default_factory=dict)
    _previous: dict[str, dict[str, float]] = field(default_factory=dict)
    _last: Sample | None = None

    def observe(self, sample: Sample, elapsed_s: float, *, compiling: bool = False) -> None:
        """Add a sample, taken `elapsed_s` seconds after the last one; while `compiling`, engines count as computing."""
        # Cap the time: a box that slept or a container that was paused was not observed.
        elapsed_s = min(elapsed_s, INTERVAL_S + 2 * ANSWER_TIMEOUT_S)
        last, self._last = self._last or sample, sample
        if sample.metrics is None:
            computing = sample.api_cpu_s - last.api_cpu_s > COMPUTING * elapsed_s
            self._clocks.setdefault("API server", Clock()).add(elapsed_s, computing=computing)
            return
        self._clocks.pop("API server", None)
        computing = compiling or (self.cpu_counts and sample.engine_cpu_s - last.engine_cpu_s > COMPUTING * elapsed_s)
        moved = False
        for number, engine in sample.metrics.engines.items():
            if self._previous.get(number) != engine.values:
                self._previous[number], moved = engine.values, True
                self._clocks.pop(number, None)
            elif engine.held or self.canary_pending:
                self._clocks.setdefault(number, Clock()).add(elapsed_s, computing=computing)
        self.held = sum(engine.held for engine in sample.metrics.engines.values())
        self.idle_s = 0.0 if moved else self.idle_s + elapsed_s
        if moved and self.canary_pending:
            self.canary_pending = False
            self._clocks.clear()  # of idle engines that might have had the canary

    @property
    def suspect(self) -> bool:
        """Return whether half of the limit is over, which the health check reports."""
        return any(clock.over(self.limit_s / 2) for clock in self._clocks.values())

    @property
    def stalled(self) -> bool:
        """Return whether an engine or the API server is stalled."""
        return any(clock.over(self.limit_s) for clock in self._clocks.values())

    def wants_canary(self, metrics: api_client.EngineMetrics) -> bool:
        """Return whether a canary is needed to tell stalled from idle."""
        if self.canary_pending or self.held:
            return False
        return self.idle_s >= (CANARY_WAITING_S if metrics.unanswered else CANARY_IDLE_S)

    def describe(self) -> str:
        """Describe the state for the log."""
        silent_s = max((clock.silent_s for clock in self._clocks.values()), default=0.0)
        if "API server" in self._clocks:
            return f"the API server has not answered for {silent_s:.0f} s"
        what = f"holds {self.held:.0f} requests" if self.held else "was asked for a token"
        return f"the engine {what} and has made no step for {silent_s:.0f} s"


class Watchdog:
    """Watches one run of the engine in a thread; calls `end` once when it has stalled."""

    def __init__(self, group: int, model: str, progress: EngineProgress, end: Callable[[str], None] | None) -> None:
        """Watch the process group `group`, led by the API server; without `end` only mark it unhealthy."""
        self.ready = False
        self._group = group
        self._model = model
        self._progress = progress
        self._end = end
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        """Stop watching, before or after the engine's end."""
        self._closed.set()

    def _watch(self) -> None:
        if not self._wait_until_ready():
            return
        # Goes on where the engine is not watched.
        warming_up = threading.Thread(target=warm_up.run, args=(self._model, self._closed), daemon=True)
        warming_up.start()
        before = time.monotonic()
        while not self._closed.wait(INTERVAL_S):
            metrics = _read_metrics()
            if metrics is not None and not any(api_client.STEPS in one.values for one in metrics.engines.values()):
                say("the engine reports no steps (--disable-log-stats?): it is not watched for stalls")
                return
            now = time.monotonic()
            self._progress.observe(self._sample(metrics), now - before, compiling=warming_up.is_alive())
            before = now
            if metrics is not None and self._progress.wants_canary(metrics):
                self._progress.canary_pending = True
                threading.Thread(target=self._send_canary, daemon=True).start()
            if self._act():
                return

    def _wait_until_ready(self) -> bool:
        while not self._closed.wait(READY_INTERVAL_S):
            try:
                api_client.request("/health", timeout_s=ANSWER_TIMEOUT_S)
            except OSError:
                continue  # still starting; a failed start ends the process
            self.ready = True
            return True
        return False

    def _sample(self, metrics: api_client.EngineMetrics | None) -> Sample:
        living = engine_processes.of_group(self._group)
        engine_cpu_s = sum(process.cpu_s for process in living if process.computes)
        return Sample(metrics, engine_cpu_s, sum(process.cpu_s for process in living) - engine_cpu_s)

    def _act(self) -> bool:
        """Mark, unmark or end the engine; return True when it was ended."""
        progress = self._progress
        if progress.stalled and self._end is not None and not self._closed.is_set():
            troubles = [process.trouble for process in engine_processes.of_group(self._group) if process.trouble]
            self._end(f"{progress.describe()}{''.join(f'; {trouble}' for trouble in troubles)}")
            return True
        if progress.suspect:
            state_files.STALLED.write_text(progress.describe())
        elif state_files.STALLED.exists():
            state_files.STALLED.unlink()
        return False

    def _send_canary(self) -> None:
        try:
            api_client.ask_for_a_token(self._model, timeout_s=BUSY_FACTOR * self._progress.limit_s)
        except urllib.error.HTTPError as error:
            # 503: full of requests that the engine does not report. Other errors say nothing about the engine.
            if error.code != 503:
                say(f"the watchdog's request for one token was refused: {error}")
                self._progress.canary_pending = False
        except OSError:
            pass  # no answer: the limit decides, and the supervisor notices the server's end


def _read_metrics() -> api_client.EngineMetrics | None:
    try:
        return api_client.parse_metrics(api_client.request("/metrics", timeout_s=ANSWER_TIMEOUT_S))
    except (OSError, ValueError):
        return None


def say(text: str) -> None:
    """Print one line to the container's log."""
    print(f"headroom: {text}", flush=True)
