"""The API as a user calls it, on the port that compose.yaml publishes."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from tests.rig.running_stack import wait_for

if TYPE_CHECKING:
    from tests.rig.running_stack import Stack

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def curl(*args: str) -> str:
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--fail", *args], capture_output=True, text=True, check=True
    ).stdout


def post(url: str, body: dict[str, object]) -> str:
    return curl(url, "-H", "Content-Type: application/json", "-d", json.dumps(body))


def test_curl_lists_the_model(stack: Stack) -> None:
    [model] = json.loads(curl(f"{stack.api}/models"))["data"]
    assert model["id"] == MODEL
    assert model["max_model_len"] == 2048


def test_curl_completes(stack: Stack) -> None:
    body = {"model": MODEL, "prompt": "San Francisco is", "max_tokens": 7, "ignore_eos": True}
    answer = json.loads(post(f"{stack.api}/completions", body))
    assert answer["usage"]["completion_tokens"] == 7
    assert answer["choices"][0]["text"]


def test_greedy_chat_knows_the_capital_of_france(stack: Stack) -> None:
    assert "Paris" in stack.chat("What is the capital of France?")


def test_curl_streams_and_ends_with_done(stack: Stack) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": MODEL, "stream": True, "max_tokens": 8, "ignore_eos": True, "messages": messages}
    lines = post(f"{stack.api}/chat/completions", body).split("\n\n")
    assert lines[-2] == "data: [DONE]"
    assert len(lines) >= 8


def test_smoke_job_passes_every_check(stack: Stack) -> None:
    output = stack.compose("run", "--rm", "smoke").stdout
    assert "8 of 8 checks passed" in output
    assert "FAIL" not in output


def test_smoke_job_fails_without_a_server(stack: Stack) -> None:
    done = stack.compose("run", "--rm", "smoke", "--base-url=http://vllm:1/v1", check=False)
    assert done.returncode == 2
    assert "docker compose logs vllm" in done.stdout


def test_engine_log_has_its_statistics(stack: Stack) -> None:
    stack.chat("Say hello.")
    line = wait_for(
        "the engine's statistics",
        lambda: next((line for line in stack.logs("vllm").splitlines() if "generation throughput" in line), None),
        timeout_s=30,
    )
    for figure in ("Avg prompt throughput", "Running:", "Waiting:", "KV cache usage"):
        assert figure in line
