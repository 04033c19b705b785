"""The jobs with an engine of their own, on the real model. They need a downloaded model and no running engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.running_stack import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rig.running_stack import Stack

# Their engines start while the stack beside them has the cores.
pytestmark = pytest.mark.timeout(1500)

# Engine starts: four, as each test runs its job from the command line; the killed batch has a second one.
PROMPTS = 300
BATCH = ("--input", "/batch/q.jsonl", "--output", "/batch/a.jsonl", "--max-tokens", "4", "--temperature", "0")


def test_generate_prints_like_the_tutorial(downloaded: Stack) -> None:
    done = downloaded.compose(
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
    """Return all whole rows so far."""
    file = folder / "a.jsonl"
    whole, _, _ = file.read_text().rpartition("\n") if file.exists() else ("", "", "")
    return [json.loads(line) for line in whole.splitlines()]


def test_killed_batch_goes_on_without_loss(downloaded: Stack, batch: Path) -> None:
    name = f"{downloaded.project}-batch-{uuid.uuid4().hex[:8]}"
    job = ("run", "--rm", "-T", "--user", str(os.getuid()), "-v", f"{batch}:/batch")
    downloaded.compose(*job, "-d", "--name", name, "generate", *BATCH)
    wait_for("the first answers", lambda: answers(batch), timeout_s=480)
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
    done = downloaded.compose(*job, "generate", *BATCH, check=False)
    rows = answers(batch)
    assert [row["line"] for row in rows] == list(range(1, PROMPTS + 1))
    assert rows[: len(before)] == before
    assert [row["line"] for row in rows if "error" in row] == [100]
    assert all(row["id"] == f"q{row['line']}" and row["output_tokens"] for row in rows if "error" not in row)
    assert all(row["total_s"] > 0 and row["finish_reason"] for row in rows if "error" not in row)
    wrong_is_ahead = len(before) < 100
    assert done.returncode == int(wrong_is_ahead), done.stderr
    assert ("line 100 is not JSON" in done.stderr) == wrong_is_ahead


def test_throughput_runs_both_engines(downloaded: Stack) -> None:
    small = ("--num-prompts", "4", "--input-len", "16", "--output-len", "8", "--repeats", "2", "--json", "-")
    result = json.loads(downloaded.compose("run", "--rm", "-T", "throughput", "--backend", "both", *small).stdout)
    assert [side["backend"] for side in result["results"]] == ["vllm", "hf"]
    assert result["work"]["output_tokens"] == 4 * 8
    assert result["ratio"] > 0
    assert all(0 < side["share_of_bandwidth_limit"] < 1 for side in result["results"])
    assert result["limits"]["bandwidth_bytes_per_s"] > 1e8
