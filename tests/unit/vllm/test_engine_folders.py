"""Folders of compiled code: on the volume, one TMPDIR for each container, nothing left of ended ones."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import engine_folders
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("HOME", "TRITON_CACHE_DIR", "TMPDIR")


@pytest.fixture
def as_host(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make this process a container of another name."""
    engine_folders.claim.cache_clear()
    return lambda name: monkeypatch.setattr(engine_folders.socket, "gethostname", lambda: name)


def variables(volume: Path) -> dict[str, str]:
    return {name: str(volume / name.lower()) for name in NAMES}


def test_folders_exist_before_the_engine(tmp_path: Path, as_host: Callable[[str], None]) -> None:
    as_host("c0ffee")
    env = variables(tmp_path)
    engine_folders.prepare(env)
    assert env["TMPDIR"] == str(tmp_path / "tmpdir" / "c0ffee")
    assert all(os.access(env[name], os.W_OK) for name in NAMES)


def test_restart_in_place_keeps_the_name(tmp_path: Path, as_host: Callable[[str], None]) -> None:
    as_host("c0ffee")
    env = variables(tmp_path)
    engine_folders.prepare(env)
    first = dict(env)
    (tmp_path / "tmpdir" / "c0ffee" / "kernel.so").touch()
    engine_folders.prepare(env)
    assert env == first
    assert list((tmp_path / "tmpdir" / "c0ffee").iterdir()) == []


def test_only_ended_containers_are_cleared(tmp_path: Path, as_host: Callable[[str], None]) -> None:
    folder = tmp_path / "tmpdir"
    for name in ("ended", "running"):
        (folder / name).mkdir(parents=True)
        (folder / name / "kernel.so").touch()
    (folder / "ended.lock").touch()
    program = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(folder / "running.lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        other.stdout.readline()
        as_host("own")
        engine_folders.prepare(variables(tmp_path))
    finally:
        other.communicate(b"\n")
    assert sorted(path.name for path in folder.iterdir()) == ["own", "own.lock", "running", "running.lock"]
    assert (folder / "running" / "kernel.so").exists()


def test_foreign_volume_is_avoided(
    tmp_path: Path, as_host: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A job as another user: docker compose run --user "$(id -u)" generate.
    as_host("job")
    volume, own = tmp_path / "volume", tmp_path / "own"
    own.mkdir()
    monkeypatch.setattr(engine_folders, "ELSEWHERE", own)
    allowed = os.access
    monkeypatch.setattr(
        engine_folders.os, "access", lambda path, mode: volume not in path.parents and allowed(path, mode)
    )
    env = variables(volume)
    engine_folders.prepare(env)
    assert [env[name].startswith(f"{own}/headroom-{name.lower()}") for name in NAMES] == [True] * 3
