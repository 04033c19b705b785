"""Files of the checkout as containers need them, whatever Git's settings and the umask are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_git_keeps_line_ends(tmp_path: Path) -> None:
    # With core.autocrlf as Git for Windows sets it.
    files = {"start.sh": b"#!/bin/sh\nexit\n", "picture.png": b"\x89PNG\r\n\x1a\n", ".env.example": b"# A=\n"}
    (tmp_path / ".gitattributes").write_bytes((ROOT / ".gitattributes").read_bytes())
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    git = ["git", "-c", "core.autocrlf=true", "-c", "init.defaultBranch=main", "-C", str(tmp_path)]
    for command in (["init", "-q"], ["add", "."], ["checkout-index", "--force", "--all"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


def test_images_do_not_take_the_umask() -> None:
    # Requirements are read by the build alone, which is root.
    for file in [*ROOT.glob("docker/**/Dockerfile"), *ROOT.glob("docker/**/*.Dockerfile")]:
        final = file.read_text().rpartition("\nFROM ")[2]
        for line in re.findall(r"^COPY (?!--from).+$", final, re.MULTILINE):
            assert "--chmod=755" in line or "requirements.txt" in line, f"{file}: {line}"
