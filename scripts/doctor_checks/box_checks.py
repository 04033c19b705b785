"""The box: processor, memory, disk, ports, clock and graphics cards."""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import compose_project
from doctor_checks.check_result import CheckResult, fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

GB, GIB = 10**9, 2**30
# Unpacked sizes of the images of compose.yaml and compose.gpu.yaml, rounded up.
IMAGE_GB = {"cpu": 6, "gpu": 30}
OWN_IMAGES_GB = 2
# Flag in linux/timex.h: nothing disciplines the kernel's clock.
_STA_UNSYNC = 0x0040
# Of vLLM's images: the least of TORCH_CUDA_ARCH_LIST, and the driver that CUDA 13 needs (vLLM's page on CUDA).
MIN_CAPABILITY, MIN_DRIVER = 7.5, 580
OLD_DRIVER = "update the driver, or use the image whose tag ends in -cu129 (docs/troubleshooting.md)"
_UNITS = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


def check_processor(*, on_gpu: bool) -> Iterator[CheckResult]:
    """Check the architecture, and the instruction sets of the engine's CPU build."""
    machine = platform.machine()
    if machine not in {"x86_64", "AMD64"}:
        yield fail("processor", machine, "x86-64", "use another box: the images are built for x86-64")
        return
    flags = set(re.findall(r"\S+", _line("/proc/cpuinfo", "flags")))
    vector = sorted(flags & {"avx2", "avx512f", "amx_bf16"})
    if not on_gpu and not flags & {"avx2", "avx512f"}:
        yield fail("processor", "neither AVX2 nor AVX-512", "one of them", "use another box, or a GPU")
    else:
        yield ok("processor", f"{machine} {' '.join(vector)}".strip(), "x86-64" if on_gpu else "x86-64 with AVX2")


def free_memory_bytes() -> int:
    """Free memory for programs."""
    found = re.search(r"(\d+) kB", _line("/proc/meminfo", "MemAvailable"))
    return int(found[1]) * 1024 if found else 0


def check_memory(needed_gib: float, why: str, *, engine_runs: bool) -> Iterator[CheckResult]:
    """Check the free memory against the engine's needs; always ok once it runs."""
    free = free_memory_bytes() / GIB
    needed = f"{needed_gib:.1f} GiB ({why})"
    if engine_runs:
        yield ok("memory", f"{free:.1f} GiB free, the engine has its own")
    elif free < needed_gib:
        yield fail("memory", f"{free:.1f} GiB free", needed, "end other programs, or choose a smaller MODEL_ID")
    else:
        yield ok("memory", f"{free:.1f} GiB free", needed)


def check_disk(folder: str, model: Mapping[str, Any], *, on_gpu: bool, model_bytes: float) -> Iterator[CheckResult]:
    """Check the free disk in Docker's folder against missing images, model and metrics."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:  # no permission, or Docker runs elsewhere
        yield warn("disk", f"{folder} cannot be looked at", "", "run the doctor on the box that runs Docker")
        return
    kind = "gpu" if on_gpu else "cpu"
    images = 0 if compose_project.has_image(model["services"]["vllm"]["image"]) else IMAGE_GB[kind] + OWN_IMAGES_GB
    metrics = _retention_bytes(model["services"]["prometheus"]["command"])
    needed = images * GB + model_bytes + metrics
    text = f"{needed / GB:.0f} GB (images {images}, model {model_bytes / GB:.0f}, metrics {metrics / GB:.0f})"
    if free < needed:
        yield fail("disk", f"{free / GB:.0f} GB free in {folder}", text, "free space; `docker system df` shows what")
    else:
        yield ok("disk", f"{free / GB:.0f} GB free", text)


def _retention_bytes(command: Sequence[str]) -> float:
    for argument in command:
        found = re.fullmatch(r"--storage\.tsdb\.retention\.size=(\d+)([KMGT]?B)", argument)
        if found:
            return int(found[1]) * _UNITS[found[2]]
    return 5 * GB


def check_ports(model: Mapping[str, Any], held: set[tuple[str, int]]) -> Iterator[CheckResult]:
    """Check that every published port is free, or held by this stack (`held`: address and port)."""
    wanted = [
        (name, port["host_ip"], int(port["published"]))
        for name, service in model["services"].items()
        for port in service.get("ports", [])
    ]
    taken = False
    numbers = [number for _, _, number in wanted]
    for name, address, number in wanted:
        if numbers.count(number) > 1:
            taken = True
            yield fail("ports", f"{number} is wanted twice", "one service each", f"another port for {name} in .env")
        elif (address, number) not in held and (reason := _cannot_listen(address, number)):
            taken = True
            fix = f"another port for {name} in .env, or end what listens there: ss -ltnp 'sport = :{number}'"
            yield fail("ports", f"{address}:{number} {reason}", f"free, for {name}", fix)
    if not taken:
        yield ok("ports", ", ".join(map(str, sorted(numbers))), "free, or this stack's")


def _cannot_listen(address: str, number: int) -> str:
    """Reason why nothing can listen there; empty if it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, number))
        except PermissionError:
            return ""  # below 1024: Docker can
        except OSError as error:
            return f"cannot be used ({error.strerror})"
    return ""


class _Timex(ctypes.Structure):
    """Head of struct timex, with room for its rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def check_clock() -> Iterator[CheckResult]:
    """Check that the clock is synchronized: metrics and certificates depend on it, latencies do not."""
    timex = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        return
    if timex.status & _STA_UNSYNC:
        yield warn("clock", "nothing keeps it right", "NTP", "install chrony, or run systemd-timesyncd")
    else:
        yield ok("clock", f"kept within {timex.maxerror / 1e6:.2f} s", "NTP")


def check_gpu(model: Mapping[str, Any], *, on_gpu: bool) -> Iterator[CheckResult]:
    """With the GPU layer, check that a container sees the cards; without it, report an unused card."""
    card = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    if not on_gpu:
        if card:
            fix = "COMPOSE_FILE=compose.yaml:compose.gpu.yaml in .env, to use it"
            yield warn("GPU", "an NVIDIA card that is not used", "", fix)
        return
    image = model["services"]["vllm"]["image"]
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


def _line(file: str, start: str) -> str:
    """First line of a file that begins with `start`; empty for none."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(start)), "")
