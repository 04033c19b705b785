"""The engine's processes: state and CPU time from /proc, and their end."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STATES = {"D": "waits for a device or a disk", "T": "is stopped", "t": "is being traced"}
_ENGINE_NAMES = ("VLLM::Engine", "VLLM::Worker")  # vLLM's process titles


@dataclass(frozen=True)
class EngineProcess:
    """One process: `cpu_s` is its CPU time, `state` the kernel's letter (proc(5))."""

    pid: int
    name: str
    state: str
    cpu_s: float

    @property
    def computes(self) -> bool:
        """Return whether it belongs to the engine rather than to the API server."""
        return self.name.startswith(_ENGINE_NAMES)

    @property
    def trouble(self) -> str:
        """Reason why it does not run, for the log; empty where it runs or sleeps."""
        return f"{self.name} {_STATES[self.state]}" if self.state in _STATES else ""


def of_group(group: int) -> list[EngineProcess]:
    """Living processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        # The name is in brackets and may contain brackets itself.
        pid_and_name, rest = text.rsplit(") ", 1)
        pid, name = pid_and_name.split(" (", 1)
        fields = rest.split()
        if int(fields[2]) == group and fields[0] != "Z":
            ticks = int(fields[11]) + int(fields[12])
            found.append(EngineProcess(int(pid), name, fields[0], ticks / _TICKS_PER_S))
    return found


def kill_group(group: int, timeout_s: float) -> list[EngineProcess]:
    """Kill a process group and wait for its end; return the processes left after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while left := of_group(group):
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return []
        if time.monotonic() > deadline:
            return left
        time.sleep(0.05)
    return []
