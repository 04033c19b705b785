"""Entrypoint of the load test's containers: the key from its file."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROGRAM = Path(__file__).parents[3] / "docker" / "locust" / "with-api-key"


def run(**env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), "sh", "-c", 'printf %s "${VLLM_API_KEY:-}"'],
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_key_from_file_or_variable(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert run(VLLM_API_KEY_FILE=str(file), VLLM_API_KEY="").stdout == "from-file"
    assert run(VLLM_API_KEY_FILE="/dev/null", VLLM_API_KEY="variable").stdout == "variable"
    assert run().stdout == ""


def test_key_file_of_windows_is_trimmed(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b" from-file \r\n")
    assert run(VLLM_API_KEY_FILE=str(file)).stdout == "from-file"


def test_key_and_key_file_conflict(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("a")
    done = run(VLLM_API_KEY_FILE=str(file), VLLM_API_KEY="b")
    assert (done.returncode, "both set" in done.stderr) == (2, True)
