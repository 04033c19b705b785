"""Start vLLM's OpenAI-compatible server from the settings in .env, and explain it when it fails.

The entrypoint of the `vllm` service. vLLM runs as a child: its output passes through unchanged, stop signals
are handed on, and when it ends in error the last line of the log says which setting to change.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING

import settings as engine
from explain import explain

if TYPE_CHECKING:
    from types import FrameType

TAIL_LINES = 400  # a traceback of three processes, with room
LAST_LINES_S = 2.0  # for what a process that has ended wrote last


def available_memory_bytes() -> int:
    """Memory that the container can still take: the host's free memory or its own limit, whichever is less."""
    meminfo = Path("/proc/meminfo").read_text()
    fields = dict(line.split(":", 1) for line in meminfo.splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
            available = min(available, int(text))
    return available


def cpu_flags() -> set[str]:
    """Instruction sets of the first CPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _pass_through(output: IO[str] | None, tail: deque[str]) -> None:
    for line in output or ():
        sys.stdout.write(line)
        sys.stdout.flush()
        tail.append(line)


def run(command: list[str]) -> int:
    """Run `command` to its end, passing its output through; return the exit code for the container."""
    stopping = False
    child = subprocess.Popen(  # noqa: S603  # the command is built from checked settings
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", bufsize=1
    )

    def stop(signum: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        child.send_signal(signum)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    reader = threading.Thread(target=_pass_through, args=(child.stdout, tail), daemon=True)
    reader.start()
    code = child.wait()
    # Not until the output ends: when the API server is killed, the engine's processes still hold it open.
    # They end with the container, as soon as this program does.
    reader.join(timeout=LAST_LINES_S)
    if stopping:
        return 0
    # A server that ends by itself has failed, whatever code it chose.
    print(f"headroom: {explain(''.join(tail), code)}", flush=True)
    return 128 - code if code < 0 else code or 1


def main() -> int:
    """Check the settings, then serve; the exit code is the container's."""
    try:
        settings = engine.read()
        engine.check_files(settings)
        engine.check_cpu(settings, cpu_flags())
        engine.check_memory(settings, available_memory_bytes())
    except engine.SettingError as error:
        print(f"headroom: {error}", flush=True)
        return 2
    command = ["vllm", "serve", *engine.arguments(settings)]
    print(f"headroom: {shlex.join(command)}", flush=True)
    return run(command)


if __name__ == "__main__":
    sys.exit(main())
