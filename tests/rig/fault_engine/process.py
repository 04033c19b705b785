"""Runs a test engine as a process of its own, so that it shares no event loop with the client under test."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def running_engine(
    *arguments: str, prefix: Sequence[str] = (), module: str = "tests.rig.fault_engine"
) -> Iterator[str]:
    """Start the engine with command-line `arguments`, yield its root URL, and stop it afterwards.

    `prefix` goes before the command, such as `taskset -c 1`; `module` may be `tests.rig.simulated_engine`.
    """
    command = [*prefix, sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the engine did not start: {' '.join(command)}")
            yield url
        finally:
            process.terminate()
            process.wait(timeout=10)
