"""Graphics cards: NVIDIA's as a container sees them, AMD's and Intel's by their devices."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import compose_project
from doctor_checks.check_result import CheckResult, fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

# Of vLLM's images: the least of TORCH_CUDA_ARCH_LIST, and the driver that CUDA 13 needs (vLLM's page on CUDA).
MIN_CAPABILITY, MIN_DRIVER = 7.5, 580
OLD_DRIVER = "update the driver, or use the image whose tag ends in -cu129 (docs/troubleshooting.md)"
# Of vLLM's page on ROCm (0.32): MI200, MI300, MI350, Radeon RX 7900, RX 9000, Ryzen AI MAX and AI 300.
AMD_TARGETS = {
    *("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1101"),
    *("gfx1200", "gfx1201", "gfx1150", "gfx1151"),
}
_RENDER_NODES = "renderD*"


def check_gpu(model: Mapping[str, Any], *, on_gpu: bool) -> Iterator[CheckResult]:
    """With a GPU layer, check that a container sees the cards; without one, report an unused card."""
    card = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    if not on_gpu:
        for layer, maker in _unused(nvidia=card):
            fix = f"COMPOSE_FILE=compose.yaml:{layer} in .env, to use it"
            yield warn("GPU", f"a card of {maker} that is not used", "", fix)
        return
    engine = model["services"]["vllm"]
    if devices := [device["source"] for device in engine.get("devices") or []]:
        yield from check_devices(devices, {str(group) for group in engine.get("group_add") or []})
        if "/dev/kfd" in devices:
            yield from check_amd_cards(_output("rocm-smi", "--showproductname"))
        return
    image = engine["image"]
    needed = "a container that sees the card"
    toolkit = "install the NVIDIA driver and the NVIDIA Container Toolkit, then restart Docker"
    if not compose_project.has_image(image):
        if card:
            yield warn("GPU", "a driver is there; the image is not", needed, "`docker compose pull vllm`, then again")
        else:
            yield fail("GPU", "no NVIDIA driver on this box", needed, toolkit)
        return
    run = ("run", "--rm", "--gpus", "all", "--network", "none", "--entrypoint", "nvidia-smi", image)
    try:
        seen = compose_project.docker(
            *run, "--query-gpu=name,memory.total,compute_cap,driver_version", "--format=csv,noheader"
        )
    except compose_project.DockerError as error:
        yield fail("GPU", str(error), needed, OLD_DRIVER if "unsatisfied condition: cuda" in str(error) else toolkit)
        return
    yield from check_cards(seen, image)


def check_cards(seen: str, image: str) -> Iterator[CheckResult]:
    """Check the cards that nvidia-smi lists against what the engine's image is built for.

    `seen`: name, memory, compute capability and driver of each card, one a line.
    """
    cards = [[part.strip() for part in line.rsplit(",", 3)] for line in seen.strip().splitlines()]
    named = "; ".join(f"{name}, {memory}" for name, memory, _, _ in cards)
    yield ok("GPU", named, "a container that sees the card")
    for name, _, capability, _ in cards:
        if 0 < _number(capability) < MIN_CAPABILITY:
            fix = "take another card with GPU_IDS, or leave compose.gpu.yaml out"
            needed = f"{MIN_CAPABILITY} (Turing) or newer"
            yield fail("GPU", f"{name} has compute capability {capability}", needed, fix)
    for driver in sorted({driver for *_, driver in cards}):
        if 0 < _number(driver) < MIN_DRIVER and "-cu12" not in image:
            yield warn("GPU driver", driver, f"{MIN_DRIVER} or newer for the image's CUDA 13", OLD_DRIVER)


def _number(text: str) -> float:
    """Major and minor number of a version; 0 for what nvidia-smi does not know."""
    found = re.match(r"\d+(?:\.\d+)?", text)
    return float(found[0]) if found else 0


def _unused(*, nvidia: bool) -> Iterator[tuple[str, str]]:
    """Layer and maker of each card that could carry an engine: by NVIDIA's driver, or AMD's compute interface."""
    if nvidia:
        yield "compose.gpu.yaml", "NVIDIA"
    if Path("/dev/kfd").exists():
        yield "compose.rocm.yaml", "AMD"


def check_devices(devices: Sequence[str], groups: Collection[str], root: Path = Path("/")) -> Iterator[CheckResult]:
    """Check that the devices of a layer are there, and that the engine's user is in their groups."""
    for device in devices:
        if not (root / device.lstrip("/")).exists():
            fix = "install the card's driver, or leave its layer out of COMPOSE_FILE"
            yield fail("GPU", f"{device} is not there", "the card's driver", fix)
    nodes = sorted((root / "dev/dri").glob(_RENDER_NODES)) + [root / "dev/kfd"] * ("/dev/kfd" in devices)
    found = {node: node.stat() for node in nodes if node.exists()}
    outside = {
        node.name: state.st_gid for node, state in found.items() if not _may_use(state.st_mode, state.st_gid, groups)
    }
    for name, group in outside.items():
        yield fail("GPU", f"{name} belongs to group {group}", "a group of the engine's", f"RENDER_GID={group} in .env")
    if found and not outside:
        yield ok("GPU", ", ".join(node.name for node in found), "devices that the engine may open")


def _may_use(mode: int, group: int, groups: Collection[str]) -> bool:
    """Return whether others may read and write, or the group may and is among `groups`; 44 is the images' `video`."""
    return mode & 0o006 == 0o006 or str(group) in groups or (group == 44 and "video" in groups)


def check_amd_cards(seen: str) -> Iterator[CheckResult]:
    """Check the cards in the output of `rocm-smi --showproductname` against what vLLM's image is built for."""
    cards = dict(re.findall(r"GPU\[(\d+)\]\s*: GFX Version:\s*(gfx\w+)", seen))
    names = dict(re.findall(r"GPU\[(\d+)\]\s*: Card [Ss]eries:\s*(.+)", seen))
    for number, target in cards.items():
        name = f"{names.get(number, 'a card').strip()} ({target})"
        if target in AMD_TARGETS:
            yield ok("GPU", name, "a card that vLLM's ROCm image is built for")
        else:
            fix = "take another card with GPU_IDS, or leave compose.rocm.yaml out"
            yield fail("GPU", name, f"one of {', '.join(sorted(AMD_TARGETS))}", fix)


def _output(*command: str) -> str:
    """Output of a program; empty where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603  # fixed words
    return done.stdout if done.returncode == 0 else ""
