"""Every layer against the run lines of those who made its image: devices, groups, shared memory, security options.

No layer with a card can run here, so this is all that holds them to upstream. A difference is meant, and named in
docs/platforms.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.rig.compose_model import LAYERS, ROOT, render

VLLM = "vLLM 0.32.0, docs/getting_started/installation"
GIB = 2**30


@dataclass(frozen=True)
class RunLine:
    """What upstream's `docker run` gives a container, in Compose's words; `left_out` is what we do not."""

    image: str
    source: str
    devices: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    security: set[str] = field(default_factory=set)
    mounts: set[str] = field(default_factory=set)
    cards: bool = False
    # Upstream has --ipc=host or --shm-size; this much, of what it says beside it.
    shm_gib: int = 1
    left_out: tuple[str, ...] = ()


ENGINES = {
    "cpu": RunLine("vllm/vllm-openai-cpu", f"{VLLM}/cpu.x86.inc.md, cpu.arm.inc.md", left_out=("--cap-add SYS_NICE",)),
    "gpu": RunLine(
        "vllm/vllm-openai",
        f"{VLLM}/gpu.cuda.inc.md: --gpus all --ipc=host, or --shm-size",
        cards=True,
        shm_gib=8,
        left_out=("--ipc=host",),
    ),
    "rocm": RunLine(
        "vllm/vllm-openai-rocm",
        f"{VLLM}/gpu.rocm.inc.md; .buildkite/scripts/hardware_ci/run-amd-test.sh: --shm-size=16gb and the group render",
        devices={"/dev/kfd", "/dev/dri"},
        groups={"video", "993"},
        security={"seccomp=unconfined"},
        shm_gib=16,
        left_out=("--ipc=host", "--cap-add=SYS_PTRACE"),
    ),
    "xpu": RunLine(
        "vllm/vllm-openai-xpu",
        f"{VLLM}/gpu.xpu.inc.md",
        devices={"/dev/dri"},
        groups={"video", "993"},
        mounts={"/dev/dri/by-path"},
        shm_gib=16,
        left_out=("--ipc=host", "--privileged", "--network=host"),
    ),
}
EXPORTER = RunLine(
    "nvcr.io/nvidia/k8s/dcgm-exporter",
    "dcgm-exporter 4.5.3-4.8.2, README.md and docker/Dockerfile: --gpus all --cap-add SYS_ADMIN",
    cards=True,
)


def kind_of(layers: tuple[str, ...]) -> str:
    return next((layer for layer in layers if layer in ENGINES), "cpu")


def given(service: dict[str, Any]) -> tuple[set[str], set[str], set[str], set[str], bool]:
    reserved = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    return (
        {device["source"] for device in service.get("devices", [])},
        set(service.get("group_add", [])),
        set(service["security_opt"]) - {"no-new-privileges:true"},
        {
            volume["source"]
            for volume in service["volumes"]
            if volume["source"].startswith("/dev/") and "null" not in volume["source"]
        },
        [(one["driver"], one["capabilities"]) for one in reserved] == [("nvidia", ["gpu"])],
    )


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS.keys())
def test_engine_has_what_its_image_asks_for(layers: tuple[str, ...]) -> None:
    line = ENGINES[kind_of(layers)]
    services = render(*layers)["services"]
    for name in ("vllm", "generate", "throughput"):
        service = services[name]
        # Upstream's unsuffixed tags are for x86-64 and arm64 alike (.buildkite/scripts/publish-release-images.sh).
        assert service["image"] == f"{line.image}:v0.32.0", line.source
        wanted = (line.devices, line.groups, line.security, line.mounts, line.cards)
        assert given(service) == wanted, (name, line.source)
        assert int(service["shm_size"]) >= line.shm_gib * GIB, (name, line.source)
        assert service["environment"]["ENGINE_DEVICE"] == ("cpu" if line is ENGINES["cpu"] else "gpu")


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS.keys())
def test_only_nvidias_layer_has_the_exporter(layers: tuple[str, ...]) -> None:
    exporter = render(*layers)["services"].get("gpu-exporter")
    assert (exporter is not None) is ("gpu" in layers)
    if exporter is not None:
        assert exporter["image"].startswith(f"{EXPORTER.image}:"), EXPORTER.source
        assert given(exporter)[-1] is EXPORTER.cards
        assert exporter["cap_add"] == ["SYS_ADMIN"]
        # Whatever happens to NVIDIA's program, `up --wait` sees a service that runs.
        assert exporter["entrypoint"] == ["bash", "/opt/headroom/keep-running.sh"]


@pytest.mark.parametrize("kind", ENGINES)
def test_each_difference_is_documented(kind: str) -> None:
    text = (ROOT / "docs" / "platforms.md").read_text()
    assert [option for option in ENGINES[kind].left_out if f"`{option}`" not in text] == []
