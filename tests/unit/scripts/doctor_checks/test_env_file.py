"""Values of .env that Compose changes, or reads other than they look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from doctor_checks import env_file, setting_checks
from doctor_checks.check_result import WARN

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """Findings of the doctor in a .env of these lines, as one text."""
    monkeypatch.delenv("COMPOSE_ENV_FILES", raising=False)
    monkeypatch.delenv("cd12", raising=False)

    def find(*lines: str) -> str:
        (tmp_path / ".env").write_text("\n".join(lines))
        found = list(setting_checks._changed_by_compose(env_file.read(tmp_path)))
        assert all(finding.verdict == WARN and finding.fix for finding in found)
        return "\n".join(f"{finding.found} -> {finding.fix}" for finding in found)

    return find


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("VLLM_API_KEY=sk-ab$cd12$9x", "VLLM_API_KEY='...'"),
        ('EDGE_PASSWORD="a${HOME}b"', "EDGE_PASSWORD in .env has a $"),
        ("GRAFANA_ADMIN_PASSWORD=a$$b", "has a $"),
        ("MODEL_ID=owner/$cd12", "MODEL_ID in .env has a $"),
        ("VLLM_API_KEY=abc #def", "what follows its # is left out"),
        ("MODEL_ID='owner/name'-chat", "closing quote"),
        ('MODEL_ID="owner/name "', "blanks"),
        ("MODEL_ID=\u201cowner/name\u201d", "typographic"),
    ],
)
def test_changed_value_is_warned_of(warnings: object, line: str, words: str) -> None:
    assert callable(warnings)
    said = warnings(line)
    assert words in said
    for value in ("sk-ab", "a$$b", "abc"):
        assert value not in said


@pytest.mark.parametrize(
    "lines",
    [
        ["VLLM_API_KEY='sk-ab$cd12$9x #x'"],
        ["VLLM_API_KEY=abc#def$9"],
        ["MODELS=/data", "MODEL_LOCAL_PATH=${MODELS}/qwen  # ours", "MODEL_ID=${cd12:-owner/name}"],
        ["VLLM_EXTRA_ARGS=--override-generation-config '{\"temperature\": 0}'", 'DTYPE="half" # a comment'],
        ["# VLLM_API_KEY=$cd12"],
    ],
)
def test_value_as_written_is_not_warned_of(warnings: object, lines: list[str]) -> None:
    assert callable(warnings)
    assert warnings(*lines) == ""


def test_other_env_files_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "box.env").write_bytes(b"\xef\xbb\xbfexport DTYPE=half\r\nMODEL_ID: a/b\r\n")
    monkeypatch.setenv("COMPOSE_ENV_FILES", "box.env")
    assert [(entry.name, entry.text) for entry in env_file.read(tmp_path)] == [("DTYPE", "half"), ("MODEL_ID", "a/b")]
