"""The checkout: files that the containers mount must be readable for their users, with line ends as in Git."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor_checks.check_result import CheckResult, fail, ok
from repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SELINUX = Path("/sys/fs/selinux/enforce")
# Types that SELinux lets containers read.
_LABELS = ("container_file_t", "container_ro_file_t", "svirt_sandbox_file_t")
_SCRIPTS = {".sh", ".py", ".yml", ".yaml", ".env"}


def check_checkout(model: Mapping[str, Any], docker_info: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Check the mounted files of the checkout, and where SELinux is on the user's own files."""
    folders = {source for source in _binds(model) if source.is_relative_to(ROOT) and source.exists()}
    found_there = {file for folder in folders for file in (folder, *folder.rglob("*"))}
    files = sorted(file for file in found_there if "__pycache__" not in file.parts)
    found = [*_unreadable(files, docker_info), *_carriage_returns(files), *_unlabelled(model, docker_info)]
    yield from found or [ok("checkout", f"{len(files)} mounted files, readable for containers")]


def _binds(model: Mapping[str, Any]) -> Iterator[Path]:
    for service in model["services"].values():
        for mount in service.get("volumes") or []:
            if mount.get("type") == "bind":
                yield Path(mount["source"])


def _unreadable(files: list[Path], docker_info: Mapping[str, Any]) -> Iterator[CheckResult]:
    if docker_info.get("OperatingSystem") == "Docker Desktop":
        return  # it shares files with its own rights
    closed = []
    for file in files:
        mode = file.stat().st_mode
        needed = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
        if mode & needed != needed:
            closed.append(str(file.relative_to(ROOT)))
    if closed:
        names = f"{closed[0]} and {len(closed) - 1} more" if len(closed) > 1 else closed[0]
        fix = (
            "chmod -R a+rX docker scripts (the checkout was made under umask 077?), then `docker compose up -d --wait`"
        )
        yield fail("checkout", f"containers cannot read {names}", "readable for others", fix)


def _carriage_returns(files: list[Path]) -> Iterator[CheckResult]:
    for file in files:
        if file.suffix in _SCRIPTS and os.access(file, os.R_OK) and b"\r\n" in file.read_bytes():
            fix = "git checkout-index --force --all: it writes every file anew, and drops what is not committed"
            yield fail("checkout", f"{file.relative_to(ROOT)} has Windows' line ends", "those of Git", fix)
            return


def _unlabelled(model: Mapping[str, Any], docker_info: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Report files outside of the checkout that SELinux keeps from containers; Compose labels those inside (`z`)."""
    confined = any("name=selinux" in str(option) for option in docker_info.get("SecurityOptions") or [])
    if not confined or not _SELINUX.is_file() or _SELINUX.read_text().strip() != "1":
        return
    secrets = (Path(str(secret.get("file") or os.devnull)) for secret in (model.get("secrets") or {}).values())
    local = (
        Path(mount["source"])
        for mount in model["services"]["model"].get("volumes") or []
        if mount.get("target") == "/local"
    )
    for file in sorted({*secrets, *local} - {Path(os.devnull)}):
        if file.exists() and not any(label in label_of(file) for label in _LABELS):
            fix = f"chcon -Rt container_file_t {file}"
            yield fail("checkout", f"SELinux keeps containers from {file}", "labelled for containers", fix)


def label_of(file: Path) -> str:
    """SELinux label of a file; empty for none."""
    try:
        return os.getxattr(file, "security.selinux").decode("ascii", "replace")
    except OSError:
        return ""
