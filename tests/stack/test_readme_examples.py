"""The README's examples as they are printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.rig.running_stack import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.running_stack import Stack

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def printed_commands() -> list[str]:
    """Return every command in the README that calls the API."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    commands = [line for block in blocks for line in re.split(r"\n(?! )", block.strip())]
    return [command for command in commands if command.startswith(("curl ", "python examples/"))]


def test_readme_shows_every_kind_of_call() -> None:
    text = "\n".join(printed_commands())
    for call in ("/v1/models", "/v1/completions", "/v1/chat/completions", '"stream": true', "completion.py", "chat.py"):
        assert call in text


@pytest.mark.parametrize("command", printed_commands(), ids=lambda command: command.split("-d")[0][:60])
def test_readme_example_works_as_printed(command: str, stack: Stack, tmp_path: Path) -> None:
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
