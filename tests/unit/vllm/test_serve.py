from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ENGINE = Path(__file__).parents[3] / "docker" / "vllm"


def run_child(program: str, *, stop_with: signal.Signals | None = None) -> tuple[int, str]:
    """Exit code and output of serve.run over a child that runs `program`; stopped once it says "ready"."""
    wrapper = f"import serve, sys; sys.exit(serve.run([sys.executable, '-uc', {program!r}]))"
    with subprocess.Popen(
        [sys.executable, "-uc", wrapper],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ENGINE)},
    ) as process:
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line
            if stop_with and line == "ready\n":
                process.send_signal(stop_with)
        return process.wait(timeout=10), output


WAIT_FOR_STOP = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("draining"), sys.exit(0)))
print("ready")
while True: time.sleep(0.1)
"""


def test_stop_reaches_the_engine_and_is_no_failure() -> None:
    code, output = run_child(WAIT_FOR_STOP, stop_with=signal.SIGTERM)
    assert code == 0
    assert "draining" in output
    assert "headroom:" not in output


def test_a_failed_engine_keeps_its_output_and_its_code_and_is_explained() -> None:
    code, output = run_child("import sys; sys.exit('vllm: error: unrecognized arguments: --nope')")
    assert code == 1
    assert "vllm: error: unrecognized" in output
    assert output.splitlines()[-1].startswith("headroom: VLLM_EXTRA_ARGS")


def test_an_engine_that_ends_by_itself_has_failed() -> None:
    code, output = run_child("print('bye')")
    assert code == 1
    assert output.splitlines()[-1].startswith("headroom: the engine stopped")


def test_a_killed_engine_is_reported_like_the_shell_does() -> None:
    code, output = run_child("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert code == 128 + signal.SIGKILL
    assert "memory ran out" in output


def test_a_killed_server_is_not_waited_for_while_its_engine_lives_on() -> None:
    orphan = (
        "import os, subprocess, sys, signal; subprocess.Popen(['sleep', '30']); os.kill(os.getpid(), signal.SIGKILL)"
    )
    start = time.monotonic()
    code, _ = run_child(orphan)
    assert code == 128 + signal.SIGKILL
    assert time.monotonic() - start < 20


def test_a_bad_setting_ends_the_container_before_the_engine_starts() -> None:
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
