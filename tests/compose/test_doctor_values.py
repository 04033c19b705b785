"""The doctor finds settings that cannot work, or contradict each other, before anything is started."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import compose_project
import pytest
import repository
from doctor_checks import env_file, setting_checks
from doctor_checks.check_result import FAIL, OK, WARN

from tests.rig.compose_model import render

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (
    *("MODEL_ID", "DTYPE", "CHAT_TEMPLATE", "SERVED_MODEL_NAME", "MODEL_REVISION", "MODEL_TOKEN"),
    "SLO_TTFT_MS",
)


@pytest.fixture(autouse=True)
def no_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A developer's own .env is not under test."""
    (tmp_path / ".env.example").write_text((repository.ROOT / ".env.example").read_text())
    monkeypatch.setattr("doctor_checks.setting_checks.ROOT", tmp_path)


def seen_by_doctor(*layers: str, **env: str) -> dict[str, Any]:
    """Return the rendered model without the services of a profile."""
    model = render(*layers, **env)
    del model["services"]["alertmanager"]
    return model


def test_defaults_contradict_nothing() -> None:
    for layers in ((), ("gpu",), ("airgap",)):
        assert [finding.verdict for finding in setting_checks.check_values(seen_by_doctor(*layers))] == [OK]


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
        ((), {"PROMETHEUS_RETENTION_TIME": "30"}, "PROMETHEUS_RETENTION_TIME=30"),
        ((), {"PROMETHEUS_RETENTION_SIZE": "5G"}, "PROMETHEUS_RETENTION_SIZE=5G"),
        ((), {"CA_BUNDLE_FILE": "/etc/hostname"}, "/etc/hostname has no certificate"),
        ((), {"ENGINE_ENV": "NCCL_P2P_DISABLE"}, "ENGINE_ENV"),
        (("edge",), {"EDGE_DOMAIN": "a.b", "EDGE_PASSWORD": "p" * 12, "EDGE_MAX_BODY": "ten"}, "EDGE_MAX_BODY=ten"),
        (("scale",), {"ROUTER_POLICY": "fair"}, "ROUTER_POLICY=fair"),
        (("gpu",), {"GPU_IDS": "1,2", "GPU_COUNT": "2"}, "GPU_IDS=1,2"),
        (("gpu",), {"TENSOR_PARALLEL_SIZE": "4", "GPU_COUNT": "2"}, "TENSOR_PARALLEL_SIZE=4"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_impossible_setting_fails(layers: tuple[str, ...], env: dict[str, str], words: str) -> None:
    failed = [
        finding for finding in setting_checks.check_values(seen_by_doctor(*layers, **env)) if finding.verdict == FAIL
    ]
    assert any(words in f"{finding.found} {finding.fix}" for finding in failed), failed
    assert all(finding.fix for finding in failed)


def test_unreadable_key_file_fails(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s3cret")
    key.chmod(0o600)
    failed = [
        finding
        for finding in setting_checks.check_values(seen_by_doctor(VLLM_API_KEY_FILE=str(key)))
        if finding.verdict == FAIL
    ]
    assert [str(key) in finding.found for finding in failed] == [True]
    key.chmod(0o644)
    assert [finding.verdict for finding in setting_checks.check_values(seen_by_doctor(VLLM_API_KEY_FILE=str(key)))] == [
        OK
    ]


def test_misspelt_name_and_open_file_warn(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("MODLE_ID=a/b\nCOMPOSE_FILE=compose.yaml\n# NOT_READ=1\nVLLM_API_KEY=s3cret\n")
    env.chmod(0o644)
    found = [finding for finding in setting_checks.check_values(seen_by_doctor()) if finding.verdict == WARN]
    assert ["MODLE_ID" in found[0].found, "MODEL_ID" in found[0].fix] == [True, True]
    assert "VLLM_API_KEY" in found[1].found
    assert "s3cret" not in repr(found)
    env.chmod(0o600)
    assert len([finding for finding in setting_checks.check_values(seen_by_doctor()) if finding.verdict == WARN]) == 1


def test_env_file_is_read_as_by_compose(tmp_path: Path) -> None:
    lines = [
        "MODEL_ID = a/b # c",
        "export DTYPE='$x # y'",
        'CHAT_TEMPLATE="it\'s "',
        "SERVED_MODEL_NAME: a#b 'c'",
        "MODEL_REVISION='a'b",
        "MODEL_TOKEN=$",
        "SLO_TTFT_MS=",
    ]
    file = tmp_path / ".env"
    file.write_bytes("\r\n".join(lines).encode())
    (tmp_path / "compose.yaml").write_text(
        "services: {a: {image: a, environment: {" + ", ".join(f"{n}: '${{{n}}}'" for n in NAMES) + "}}}"
    )
    done = subprocess.run(
        ["docker", "compose", "config", "--format", "json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    rendered = json.loads(done.stdout.replace("$$", "$"))["services"]["a"]["environment"]
    assert {entry.name: entry.text for entry in env_file.read(tmp_path)} == rendered
    assert set(rendered) == set(NAMES)


def test_dollar_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Compose's own output doubles it.
    monkeypatch.setenv("VLLM_API_KEY", "a$b")
    assert compose_project.rendered()["services"]["vllm"]["environment"]["VLLM_API_KEY"] == "a$b"
