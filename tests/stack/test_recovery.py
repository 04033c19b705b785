"""An engine that dies or hangs comes back by itself, and Docker's five restarts are not used up by it."""

from __future__ import annotations

import contextlib
import http.client as http_client
import os
import signal
import threading
from typing import TYPE_CHECKING

from tests.rig.running_stack import http, wait_for

if TYPE_CHECKING:
    from tests.rig.running_stack import Stack


def engine_pids(stack: Stack) -> dict[str, int]:
    """Host process ids in the engine's container, by command line."""
    top = stack.container("vllm").top(ps_args="-eo pid,args")
    return {" ".join(row[1:]): int(row[0]) for row in top["Processes"]}


def pid_of(stack: Stack, command: str) -> int | None:
    found = [pid for args, pid in engine_pids(stack).items() if command in args and "serve.py" not in args]
    return found[0] if found else None


def hurt_and_wait(stack: Stack, command: str, harm: signal.Signals, within_s: float) -> None:
    before = pid_of(stack, command)
    assert before
    os.kill(before, harm)
    wait_for("another process", lambda: pid_of(stack, command) not in {None, before}, within_s)

    def healthy() -> bool:
        health: str = stack.container("vllm").attrs["State"]["Health"]["Status"]
        return health == "healthy" and http(stack.url("VLLM_PORT") + "/health") == b""

    wait_for("the engine is healthy again", healthy, timeout_s=240)
    assert "Paris" in stack.chat("What is the capital of France?")
    assert stack.container("vllm").attrs["RestartCount"] == 0


def test_a_killed_engine_core_comes_back_by_itself(stack: Stack) -> None:
    hurt_and_wait(stack, "EngineCore", signal.SIGKILL, within_s=180)


def test_an_engine_core_that_froze_while_idle_is_ended_by_the_watchdog(stack: Stack) -> None:
    """The engine reports no request then, and /health answers: only the watchdog's own token tells."""

    def ask_in_vain() -> None:
        with contextlib.suppress(OSError, http_client.HTTPException):
            stack.chat("What is the capital of France?")

    asker = threading.Timer(5, ask_in_vain)
    asker.start()
    # The watchdog waits 10 s for its own token to be due, then 2 minutes for a step; a start comes after that.
    hurt_and_wait(stack, "EngineCore", signal.SIGSTOP, within_s=300)
    asker.join()
    assert "was asked for a token and has made no step for" in stack.logs("vllm")
