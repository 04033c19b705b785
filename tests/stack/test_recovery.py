from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from running_stack import http, wait_for

if TYPE_CHECKING:
    from running_stack import Stack


def engine_pids(stack: Stack) -> dict[str, int]:
    """Host process ids in the engine's container, by command line."""
    top = stack.container("vllm").top(ps_args="-eo pid,args")
    return {" ".join(row[1:]): int(row[0]) for row in top["Processes"]}


def restarts(stack: Stack) -> int:
    count: int = stack.container("vllm").attrs["RestartCount"]
    return count


def kill_and_wait(stack: Stack, command: str) -> None:
    before = restarts(stack)
    [pid] = [pid for args, pid in engine_pids(stack).items() if command in args and "serve.py" not in args]
    os.kill(pid, signal.SIGKILL)
    wait_for("the engine restarts", lambda: restarts(stack) > before, timeout_s=60)

    def healthy() -> bool:
        health: str = stack.container("vllm").attrs["State"]["Health"]["Status"]
        return health == "healthy"

    wait_for("the engine is healthy again", healthy, timeout_s=240)
    assert http(stack.url("VLLM_PORT") + "/health") == b""
    assert "Paris" in stack.chat("What is the capital of France?")


def test_a_killed_api_server_comes_back_by_itself(stack: Stack) -> None:
    kill_and_wait(stack, "vllm serve")


def test_a_killed_engine_core_comes_back_by_itself(stack: Stack) -> None:
    kill_and_wait(stack, "EngineCore")
