"""scripts/airgap in a checkout of its own, where Docker and the two helpers are stand-ins."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LAYER = "COMPOSE_FILE=compose.yaml:compose.airgap.yaml"
DOCKER = """case "$*" in
  "compose up"*) echo "container started"; exit "${UP:-0}" ;;
  "compose ps"*) printf 'hub running 0 healthy\\nvllm exited 1 \\n' ;;
  "compose logs"*) echo "headroom: DTYPE=int4 is not known" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    programs = {
        "docker/airgap/install-engine.sh": 'echo "Docker Engine 26.1.5, Compose 2.26.1"; exit "${ENGINE:-0}"',
        "docker/airgap/build-images.sh": 'echo "${STEP}vllm 182 s"; exit "${IMAGES:-0}"',
        "bin/docker": DOCKER,
    }
    for name, text in programs.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/airgap", tmp_path / "scripts")
    return tmp_path


def airgap(checkout: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "scripts/airgap", *arguments],
        env={"PATH": f"{checkout}/bin:/usr/bin:/bin", "TMPDIR": str(checkout), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_up_prints_four_steps_with_seconds(checkout: Path) -> None:
    done = airgap(checkout, "up")
    assert done.returncode == 0, done.stderr
    for step in (
        "[1/4] engine: Docker Engine 26.1.5",
        "[2/4] images: vllm 182 s",
        "[3/4] settings:",
        "[4/4] up: a chat",
    ):
        [line] = [line for line in done.stdout.splitlines() if line.startswith(step)]
        assert line.endswith(" s")
    assert (checkout / ".env").read_text() == f"{LAYER}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"{LAYER}\n"),
        ("DTYPE=half", f"DTYPE=half\n{LAYER}\n"),
        ("# COMPOSE_FILE=compose.yaml:compose.gpu.yaml\n", f"# COMPOSE_FILE=compose.yaml:compose.gpu.yaml\n{LAYER}\n"),
        ("COMPOSE_FILE=compose.yaml\nA=1\n", f"{LAYER}\nA=1\n"),
        ("COMPOSE_FILE=\nA=1\n", f"COMPOSE_FILE=\nA=1\n{LAYER}\n"),
        ("COMPOSE_FILE=compose.yaml:compose.scale.yaml\n", f"{LAYER}:compose.scale.yaml\n"),
        ("export COMPOSE_FILE='compose.yaml:compose.edge.yaml'\n", f"export {LAYER}:compose.edge.yaml'\n"),
        (f"A=1\n{LAYER}:compose.edge.yaml # mine\n", f"A=1\n{LAYER}:compose.edge.yaml # mine\n"),
    ],
)
def test_layer_is_added_and_the_rest_stays(checkout: Path, before: str, after: str) -> None:
    env = checkout / ".env"
    env.write_text(before)
    env.chmod(0o600)
    expected = after.replace("COMPOSE_FILE=compose", "COMPOSE_FILE='compose") if "'" in before else after
    for _ in range(2):
        assert airgap(checkout, "up").returncode == 0
        assert env.read_text() == expected
        assert env.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("chosen", ["compose.yaml:compose.gpu.yaml", "own.yaml:compose.yaml"])
def test_other_layers_are_left_alone(checkout: Path, chosen: str) -> None:
    (checkout / ".env").write_text(f"COMPOSE_FILE={chosen}\n")
    done = airgap(checkout, "up")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "compose.airgap.yaml" in line
    assert (checkout / ".env").read_text() == f"COMPOSE_FILE={chosen}\n"


def test_layers_of_the_shell_come_first(checkout: Path) -> None:
    done = airgap(checkout, "up", COMPOSE_FILE="compose.yaml")
    assert (done.returncode, "COMPOSE_FILE of this shell hides .env" in done.stderr) == (1, True)
    assert airgap(checkout, "up", COMPOSE_FILE="compose.yaml:compose.airgap.yaml").returncode == 0
    assert not (checkout / ".env").exists()


@pytest.mark.parametrize("step", ["ENGINE", "IMAGES"])
def test_failed_step_ends_it(checkout: Path, step: str) -> None:
    done = airgap(checkout, "up", **{step: "1"})
    assert done.returncode == 1
    assert not (checkout / ".env").exists()


def test_failed_start_names_the_service(checkout: Path) -> None:
    done = airgap(checkout, "up", UP="1")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("airgap: up failed after 0 s, see ")
    assert line.endswith("vllm: headroom: DTYPE=int4 is not known")


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("down",), 2), (("up", "now"), 2), (("-h",), 0)])
def test_wrong_arguments_show_the_usage(checkout: Path, arguments: tuple[str, ...], code: int) -> None:
    done = airgap(checkout, *arguments)
    assert done.returncode == code
    assert "scripts/airgap up" in (done.stderr if code else done.stdout)
