"""The jobs with an engine of their own, on the real model, and the README's examples as they are printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.running_stack import ROOT, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rig.running_stack import Stack

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PROMPTS = 300
BATCH = ("--input", "/batch/q.jsonl", "--output", "/batch/a.jsonl", "--max-tokens", "4", "--temperature", "0")


def printed_commands() -> list[str]:
    """Every command in the README that calls the API."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    commands = [line for block in blocks for line in re.split(r"\n(?! )", block.strip())]
    return [command for command in commands if command.startswith(("curl ", "python examples/"))]


def test_the_readme_shows_every_kind_of_call() -> None:
    text = "\n".join(printed_commands())
    for call in ("/v1/models", "/v1/completions", "/v1/chat/completions", '"stream": true', "completion.py", "chat.py"):
        assert call in text


@pytest.mark.parametrize("command", printed_commands(), ids=lambda command: command.split("-d")[0][:60])
def test_an_example_of_the_readme_works_as_printed(command: str, stack: Stack, tmp_path: Path) -> None:
    # The port is this stack's own and the model is the airgap layer's; nothing else differs from the page.
    here = command.replace("http://localhost:8000", stack.url("VLLM_PORT")).replace("Qwen/Qwen2-0.5B-Instruct", MODEL)
    (tmp_path / "python").symlink_to(sys.executable)
    env = {
        **os.environ,
        "OPENAI_BASE_URL": stack.api,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        ["bash", "-c", here.replace("curl ", "curl -sSf ", 1)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if '"stream": true' in command:
        assert done.stdout.rstrip().endswith("data: [DONE]")
    elif command.startswith("curl"):
        assert MODEL in json.loads(done.stdout).get("model", done.stdout)
    else:
        once, streamed = (line.split(":", 1)[1].strip() for line in _answers(done.stdout))
        assert once == streamed
        assert len(once) > 10
    if "capital of France" in command or "chat.py" in command:
        assert "Paris" in done.stdout


def _answers(output: str) -> list[str]:
    return re.findall(r"^(?:Completion|Answer|Stream):.*?(?=^Stream:|\Z)", output, re.DOTALL | re.MULTILINE)


def test_generate_prints_like_the_tutorial(stack: Stack) -> None:
    done = stack.compose(
        "run",
        "--rm",
        "-T",
        "generate",
        "The capital of France is",
        "One, two, three,",
        "--temperature=0",
        "--max-tokens=8",
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("Prompt: 'The capital of France is', Generated text: ' Paris")
    assert second.startswith("Prompt: 'One, two, three,', Generated text: ' four")


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "batch"
    folder.mkdir()
    rows = [{"id": f"q{line}", "prompt": f"The number after {line} is"} for line in range(1, PROMPTS + 1)]
    lines = [json.dumps(row) for row in rows]
    lines[99] = '{"prompt": '
    (folder / "q.jsonl").write_text("\n".join(lines) + "\n")
    yield folder
    shutil.rmtree(folder)


def answers(folder: Path) -> list[dict[str, Any]]:
    """All whole rows so far."""
    file = folder / "a.jsonl"
    whole, _, _ = file.read_text().rpartition("\n") if file.exists() else ("", "", "")
    return [json.loads(line) for line in whole.splitlines()]


def test_a_killed_batch_goes_on_without_loss_or_repeat(stack: Stack, batch: Path) -> None:
    name = f"{stack.project}-batch-{uuid.uuid4().hex[:8]}"
    job = ("run", "--rm", "-T", "--user", str(os.getuid()), "-v", f"{batch}:/batch")
    stack.compose(*job, "-d", "--name", name, "generate", *BATCH)
    wait_for("the first answers", lambda: answers(batch), timeout_s=180)
    subprocess.run(["docker", "kill", "--signal", str(int(signal.SIGKILL)), name], check=False, capture_output=True)
    wait_for(
        "the end of the killed job",
        lambda: (
            not subprocess.run(
                ["docker", "ps", "-q", "--filter", f"name={name}"], check=True, capture_output=True, text=True
            ).stdout
        ),
        timeout_s=30,
    )
    before = answers(batch)
    with (batch / "a.jsonl").open("a") as file:
        file.write('{"line": 9')  # as if the kernel had come in the middle of a row
    done = stack.compose(*job, "generate", *BATCH, check=False)
    rows = answers(batch)
    assert [row["line"] for row in rows] == list(range(1, PROMPTS + 1))
    assert rows[: len(before)] == before
    assert [row["line"] for row in rows if "error" in row] == [100]
    assert all(row["id"] == f"q{row['line']}" and row["output_tokens"] for row in rows if "error" not in row)
    assert all(row["total_s"] > 0 and row["finish_reason"] for row in rows if "error" not in row)
    wrong_is_ahead = len(before) < 100
    assert done.returncode == int(wrong_is_ahead), done.stderr
    assert ("line 100 is not JSON" in done.stderr) == wrong_is_ahead


def test_throughput_runs_both_sides_on_the_same_prompts(stack: Stack) -> None:
    small = ("--num-prompts", "4", "--input-len", "16", "--output-len", "8", "--repeats", "2", "--json", "-")
    told = json.loads(stack.compose("run", "--rm", "-T", "throughput", "--backend", "both", *small).stdout)
    assert [side["backend"] for side in told["results"]] == ["vllm", "hf"]
    assert told["work"]["output_tokens"] == 4 * 8
    assert told["ratio"] > 0
    assert all(0 < side["share_of_bandwidth_limit"] < 1 for side in told["results"])
    assert told["limits"]["bandwidth_bytes_per_s"] > 1e8


def test_the_engines_log_line_has_throughput_queue_and_cache(stack: Stack) -> None:
    stack.chat("Say hello.")
    line = wait_for(
        "the engine's statistics",
        lambda: next((line for line in stack.logs("vllm").splitlines() if "generation throughput" in line), None),
        timeout_s=30,
    )
    for figure in ("Avg prompt throughput", "Running:", "Waiting:", "KV cache usage"):
        assert figure in line
