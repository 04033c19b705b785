"""The doctor finds settings that cannot work, or contradict each other, before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import repository
from doctor_checks import setting_checks
from doctor_checks.check_result import FAIL, OK, WARN

from tests.rig.compose_model import render

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A developer's own .env is not under test."""
    (tmp_path / ".env.example").write_text((repository.ROOT / ".env.example").read_text())
    monkeypatch.setattr("doctor_checks.setting_checks.ROOT", tmp_path)


def test_defaults_contradict_nothing() -> None:
    for layers in ((), ("gpu",), ("airgap",)):
        assert [finding.verdict for finding in setting_checks.check_values(render(*layers))] == [OK]


@pytest.mark.parametrize(
    ("layers", "env", "words"),
    [
        ((), {"DTYPE": "int4"}, "DTYPE=int4"),
        ((), {"MODEL_ID": "not-an-id"}, "not-an-id"),
        ((), {"BIND_ADDRESS": "0.0.0.0", "GRAFANA_ADMIN_PASSWORD": "p"}, "VLLM_API_KEY is empty"),
        ((), {"BIND_ADDRESS": "0.0.0.0", "VLLM_API_KEY": "k"}, "GRAFANA_ADMIN_PASSWORD"),
        ((), {"MODEL_SOURCE": "local"}, "MODEL_LOCAL_PATH"),
        ((), {"SLO_PERCENTILE": "100"}, "SLO_PERCENTILE=100"),
        ((), {"VLLM_API_KEY_FILE": "/no/such/key"}, "/no/such/key"),
        (("gpu",), {"TENSOR_PARALLEL_SIZE": "4", "GPU_COUNT": "2"}, "TENSOR_PARALLEL_SIZE=4"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_impossible_setting_fails(layers: tuple[str, ...], env: dict[str, str], words: str) -> None:
    failed = [finding for finding in setting_checks.check_values(render(*layers, **env)) if finding.verdict == FAIL]
    assert any(words in f"{finding.found} {finding.fix}" for finding in failed), failed
    assert all(finding.fix for finding in failed)


def test_unreadable_key_file_fails(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s3cret")
    key.chmod(0o600)
    failed = [
        finding
        for finding in setting_checks.check_values(render(VLLM_API_KEY_FILE=str(key)))
        if finding.verdict == FAIL
    ]
    assert [str(key) in finding.found for finding in failed] == [True]
    key.chmod(0o644)
    assert [finding.verdict for finding in setting_checks.check_values(render(VLLM_API_KEY_FILE=str(key)))] == [OK]


def test_misspelt_name_and_open_file_warn(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("MODLE_ID=a/b\nCOMPOSE_FILE=compose.yaml\n# NOT_READ=1\nVLLM_API_KEY=s3cret\n")
    env.chmod(0o644)
    found = [finding for finding in setting_checks.check_values(render()) if finding.verdict == WARN]
    assert ["MODLE_ID" in found[0].found, "MODEL_ID" in found[0].fix] == [True, True]
    assert "VLLM_API_KEY" in found[1].found
    assert "s3cret" not in repr(found)
    env.chmod(0o600)
    assert len([finding for finding in setting_checks.check_values(render()) if finding.verdict == WARN]) == 1
