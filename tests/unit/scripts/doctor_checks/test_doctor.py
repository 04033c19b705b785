"""The doctor on simulated boxes: an old Docker, none, a taken port, a full disk."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import compose_project
import pytest
from doctor_checks import box_checks, docker_checks, doctor, gpu_checks, setting_checks, stack_checks
from doctor_checks.check_result import FAIL, OK, WARN, CheckResult

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[4]


@pytest.fixture
def docker_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a docker of these versions first on the path."""

    def make(engine_version: str, compose_version: str) -> None:
        program = tmp_path / "docker"
        program.write_text(
            f"#!/bin/sh\ncase $1 in version) echo {engine_version} ;; *) echo {compose_version} ;; esac\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return make


@pytest.mark.parametrize(
    ("versions", "verdicts"),
    [
        (("28.3.1", "v2.38.2"), [OK, OK]),
        (("26.1.5+dfsg1", "2.26.1-4"), [WARN, OK]),
        (("24.0.9", "2.23.3"), [FAIL, FAIL]),
        (("20.10.24+dfsg1", "1.29.2"), [FAIL, FAIL]),
    ],
)
def test_old_docker_versions_fail(
    docker_of: Callable[[str, str], None], versions: tuple[str, str], verdicts: list[str]
) -> None:
    docker_of(*versions)
    assert [finding.verdict for finding in docker_checks.check_versions()] == verdicts


def test_doctor_without_docker_or_packages(tmp_path: Path) -> None:
    done = subprocess.run(
        # -S: the standard library alone, as on a fresh box.
        [sys.executable, "-S", str(ROOT / "scripts" / "doctor")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "FAIL  Docker Engine    the command docker is not there" in done.stdout
    assert "-> install and start it" in done.stdout


def service(port: int) -> dict[str, Any]:
    return {"services": {"vllm": {"ports": [{"host_ip": "127.0.0.1", "published": str(port)}]}}}


def test_taken_port_fails_unless_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        [finding] = box_checks.check_ports(service(port), set())
        assert (finding.verdict, f"127.0.0.1:{port}" in finding.found, "vllm" in finding.fix) == (FAIL, True, True)
        assert [found.verdict for found in box_checks.check_ports(service(port), {("127.0.0.1", port)})] == [OK]
    assert [found.verdict for found in box_checks.check_ports(service(port), set())] == [OK]


def test_memory_is_checked_before_the_start() -> None:
    [finding] = box_checks.check_memory(10_000, "weights", engine_runs=False)
    assert (finding.verdict, "10000.0 GiB" in finding.needed) == (FAIL, True)
    assert [found.verdict for found in box_checks.check_memory(10_000, "weights", engine_runs=True)] == [OK]


def test_engine_without_port_counts_as_running(monkeypatch: pytest.MonkeyPatch) -> None:
    behind_the_edge = {**container(), "NetworkSettings": {"Ports": {"8000/tcp": None}, "Networks": {}}}
    [memory] = findings(monkeypatch, [behind_the_edge], "memory")
    assert (memory.verdict, "the engine has its own" in memory.found) == (OK, True)
    for state in ({"Running": False}, {"Restarting": True}):
        ended = {**behind_the_edge, **container(**state)}
        assert [memory.verdict for memory in findings(monkeypatch, [ended], "memory")] == [FAIL]


def test_invalid_cache_size_uses_default(monkeypatch: pytest.MonkeyPatch) -> None:
    [memory] = findings(monkeypatch, [], "memory", CPU_KV_CACHE_GIB="2GB")
    assert "KV cache 1," in memory.needed


@pytest.mark.parametrize(
    ("stored", "env", "weights"),
    [
        ({"torch_dtype": "bfloat16"}, {}, "weights 2.0,"),
        ({"torch_dtype": "bfloat16"}, {"DTYPE": "bfloat16"}, "weights 1.0,"),
        ({"dtype": "float32"}, {}, "weights 1.0,"),
        (None, {"DTYPE": "float16"}, "weights 1.0,"),
    ],
)
def test_memory_uses_the_engines_estimate(
    monkeypatch: pytest.MonkeyPatch, stored: dict[str, str] | None, env: dict[str, str], weights: str
) -> None:
    found = stack_checks.OnVolume(ready=True, bytes=2**30, known=True, config=stored)
    [memory] = findings(monkeypatch, [], "memory", found, **env)
    assert weights in memory.needed


def test_model_config_is_read_from_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    service = {"image": "model:1", "environment": {"MODEL_ID": "a/b"}}
    model = {"services": {"model": service}, "volumes": {"models": {"name": "x_models"}}}
    said = {"list": "READY        1.5 GB  modelscope   a/b@master  <- the settings\n"}
    monkeypatch.setattr(compose_project, "docker", lambda *args: said.get(args[-1], ""))
    assert stack_checks.wanted_model(model) == stack_checks.OnVolume(ready=True, bytes=1.5e9, known=True)
    said["/models/a/b/config.json"] = '{"torch_dtype": "float32"}'
    assert stack_checks.wanted_model(model).config == {"torch_dtype": "float32"}


@pytest.mark.parametrize(
    ("line", "warned"),
    [
        ("EDGE_PASSWORD=s3cret", True),
        ("export VLLM_API_KEY=s3cret", True),
        ("  MODEL_TOKEN = s3cret", True),
        ("MODEL_TOKEN: 's3cret'", True),
        ("VLLM_API_KEY=\nMODEL_ID=a/b", False),
        ("VLLM_API_KEY=''", False),
        ("# VLLM_API_KEY=s3cret", False),
    ],
)
def test_readable_secret_warns(tmp_path: Path, line: str, *, warned: bool) -> None:
    env = tmp_path / ".env"
    env.write_text(f"{line}\n")
    env.chmod(0o644)
    assert bool(list(setting_checks._readable_secrets(env))) is warned
    env.chmod(0o600)
    assert not list(setting_checks._readable_secrets(env))


def test_small_disk_fails(tmp_path: Path) -> None:
    image = {"vllm": {"image": "no-such-image:1"}, "prometheus": {"command": ["--storage.tsdb.retention.size=900TB"]}}
    [finding] = box_checks.check_disk(str(tmp_path), {"services": image}, on_gpu=False, model_bytes=0)
    assert finding.verdict == FAIL
    image["prometheus"] = {"command": ["--storage.tsdb.retention.size=1KB"]}
    image["vllm"] = {"image": "no-such-image:1"}
    [finding] = box_checks.check_disk("/no/such/folder", {"services": image}, on_gpu=False, model_bytes=0)
    assert finding.verdict == WARN


def container(**state: Any) -> dict[str, Any]:
    return {
        "State": {"Running": True, "ExitCode": 0, **state},
        "RestartCount": 0,
        "HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}},
        "Config": {"Labels": {"com.docker.compose.service": "vllm"}},
    }


NOTHING_YET = stack_checks.OnVolume(ready=False, bytes=0, known=False)


def findings(
    monkeypatch: pytest.MonkeyPatch,
    boxes: list[dict[str, Any]],
    what: str,
    on_volume: stack_checks.OnVolume = NOTHING_YET,
    **settings: str,
) -> list[CheckResult]:
    """The doctor's results for one subject, for a CPU engine on a box without free memory."""
    services = {"vllm": {"environment": {"ENGINE_DEVICE": "cpu", **settings}}}
    monkeypatch.setattr(docker_checks, "check_versions", list)
    monkeypatch.setattr(compose_project, "rendered", lambda: {"name": "test", "services": services})
    monkeypatch.setattr(compose_project, "info", lambda: {"DockerRootDir": "/"})
    monkeypatch.setattr(compose_project, "containers", lambda: boxes)
    monkeypatch.setattr(stack_checks, "wanted_model", lambda _: on_volume)
    monkeypatch.setattr(box_checks, "free_memory_bytes", lambda: 0)
    for other in (
        "setting_checks.check_values",
        "box_checks.check_disk",
        "stack_checks.check_model",
        "stack_checks.check_containers",
    ):
        monkeypatch.setattr(f"doctor_checks.{other}", lambda *_, **__: [])
    return [finding for finding in doctor.examine() if finding.what == what]


@pytest.mark.parametrize(
    ("state", "verdict", "words"),
    [
        ({"Health": {"Status": "healthy"}}, OK, "healthy"),
        ({"Health": {"Status": "starting"}}, WARN, "still starting"),
        ({"Health": {"Status": "unhealthy", "Log": [{"Output": "a\nnot healthy: refused\n"}]}}, FAIL, "refused"),
        ({"Running": False, "ExitCode": 137, "OOMKilled": True}, FAIL, "out of memory"),
    ],
)
def test_container_states(state: dict[str, Any], verdict: str, words: str) -> None:
    finding = stack_checks._container("vllm", container(**state))
    assert (finding.verdict, words in finding.found) == (verdict, True), finding


def test_service_that_ends_again_and_again_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    # As Compose writes it, with a control sequence before each line.
    monkeypatch.setattr(compose_project, "docker", lambda *_: "\x1b[2Kheadroom: A=1 is wrong\n\x1b[2Kmore\n")
    restarting = container(Running=True, Restarting=True, ExitCode=2)
    finding = stack_checks._container("prometheus", restarting)
    assert (finding.verdict, finding.found) == (FAIL, "ends and starts again: headroom: A=1 is wrong")
    restarting["Config"]["Labels"][compose_project.SERVICE_LABEL] = "prometheus"
    assert stack_checks.prometheus_at([restarting]) == ""


@pytest.mark.parametrize(
    ("seen", "image", "words"),
    [
        ("NVIDIA H100 80GB HBM3, 81559 MiB, 9.0, 580.95.05", "v0.32.0", []),
        ("Tesla V100-PCIE-16GB, 16384 MiB, 7.0, 580.65.06", "v0.32.0", ["Tesla V100-PCIE-16GB has compute capability"]),
        ("Tesla T4, 15360 MiB, 7.5, 570.86.10", "v0.32.0", ["570.86.10"]),
        ("Tesla T4, 15360 MiB, 7.5, 535.104.05", "v0.32.0-cu129", []),
        ("NVIDIA GB10, [N/A], 12.1, 580.95.05\nQuadro P400, 2048 MiB, 6.1, 580.95.05", "v0.32.0", ["Quadro P400 has"]),
        ("GRID A100, 40960 MiB, [N/A], [N/A]", "v0.32.0", []),
    ],
)
def test_old_card_or_driver_is_named(seen: str, image: str, words: list[str]) -> None:
    first, *found = gpu_checks.check_cards(f"{seen}\n", f"vllm/vllm-openai:{image}")
    assert first.verdict == OK
    assert len(found) == len(words)
    for finding, word in zip(found, words, strict=True):
        assert word in finding.found
        assert ("-cu129" if finding.what == "GPU driver" else "GPU_IDS") in finding.fix
