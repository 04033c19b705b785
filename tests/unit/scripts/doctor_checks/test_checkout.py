"""The doctor on checkouts whose files containers cannot use."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from doctor_checks import checkout_checks
from doctor_checks.check_result import FAIL, OK

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one mounted folder."""
    monkeypatch.setattr(checkout_checks, "ROOT", tmp_path)
    folder = tmp_path / "docker" / "prometheus"
    (folder / "rules").mkdir(parents=True)
    for name in ("start.sh", "rules/alerts.yaml"):
        (folder / name).write_bytes(b"#!/bin/sh\n")
    return tmp_path


def found(checkout: Path, key: str = "/dev/null", **info: Any) -> list[tuple[str, str, str]]:
    mounts = [
        {"type": "bind", "source": str(checkout / "docker" / "prometheus"), "target": "/etc/prometheus"},
        {"type": "bind", "source": "/", "target": "/host"},
        {"type": "volume", "source": "prometheus-data", "target": "/prometheus"},
    ]
    model = {"services": {"model": {}, "prometheus": {"volumes": mounts}}, "secrets": {"key": {"file": key}}}
    return [(one.verdict, one.found, one.fix) for one in checkout_checks.check_checkout(model, info)]


def test_readable_checkout_is_ok(checkout: Path) -> None:
    assert found(checkout) == [(OK, "4 mounted files, readable for containers", "")]


@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [
        ("rules/alerts.yaml", 0o600, "docker/prometheus/rules/alerts.yaml"),
        ("rules", 0o700, "docker/prometheus/rules"),
        ("rules", 0o744, "docker/prometheus/rules"),
    ],
)
def test_file_closed_to_others_is_named(checkout: Path, name: str, mode: int, words: str) -> None:
    (checkout / "docker" / "prometheus" / name).chmod(mode)
    [(verdict, said, fix)] = found(checkout)
    assert (verdict, said) == (FAIL, f"containers cannot read {words}")
    assert "chmod -R a+rX docker" in fix
    assert found(checkout, OperatingSystem="Docker Desktop")[0][0] == OK


def test_line_ends_of_windows_are_named(checkout: Path) -> None:
    (checkout / "docker" / "prometheus" / "start.sh").write_bytes(b"#!/bin/sh\r\nexit\r\n")
    [(verdict, said, fix)] = found(checkout)
    assert (verdict, "docker/prometheus/start.sh" in said, "git" in fix) == (FAIL, True, True)


def test_secret_without_selinux_label_is_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, enforce = checkout / "key", checkout / "enforce"
    secret.touch()
    enforce.write_text("1")
    monkeypatch.setattr(checkout_checks, "_SELINUX", enforce)
    confined = ["name=seccomp,profile=builtin", "name=selinux"]
    [(verdict, said, fix)] = found(checkout, str(secret), SecurityOptions=confined)
    assert (verdict, str(secret) in said, fix) == (FAIL, True, f"chcon -Rt container_file_t {secret}")
    assert found(checkout, str(secret), SecurityOptions=confined[:1])[0][0] == OK
    monkeypatch.setattr(checkout_checks, "label_of", lambda _: "system_u:object_r:container_file_t:s0")
    assert found(checkout, str(secret), SecurityOptions=confined)[0][0] == OK
    monkeypatch.setattr(checkout_checks, "label_of", lambda _: "unconfined_u:object_r:user_home_t:s0")
    enforce.write_text("0")
    assert found(checkout, str(secret), SecurityOptions=confined)[0][0] == OK


def test_folder_that_is_gone_is_left_to_compose(checkout: Path) -> None:
    shutil.rmtree(checkout / "docker")
    assert found(checkout)[0][0] == OK
