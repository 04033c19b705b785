"""The box: processor, kernel, memory, disk, ports and clock."""

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
from repository import import_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

import_from("docker/vllm")

import host_resources  # noqa: E402
import settings as engine_settings  # noqa: E402  # from the folder above

GB, GIB = 10**9, 2**30
# Unpacked sizes of the images of compose.yaml and compose.gpu.yaml, rounded up.
IMAGE_GB = {"cpu": 6, "gpu": 30}
OWN_IMAGES_GB = 2
# Flag in linux/timex.h: nothing disciplines the kernel's clock.
_STA_UNSYNC = 0x0040
# Flags of /proc/cpuinfo that tell how fast a CPU engine is, and their names.
_NAMED_FLAGS = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
    "bf16": "bf16",
    "i8mm": "i8mm",
    "sve": "sve",
}
_UNITS = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


def check_processor(*, on_gpu: bool, machine: str = "", cpuinfo: str = "") -> Iterator[CheckResult]:
    """Check the architecture, and the instruction sets of the engine's CPU build.

    `machine` is of uname, `cpuinfo` the text of /proc/cpuinfo; this box's own where empty.
    """
    machine = machine or platform.machine()
    if machine not in {"x86_64", "AMD64", "aarch64", "arm64"}:
        yield fail("processor", machine, "x86-64 or arm64", "use another box: there are no images for this one")
        return
    arm = machine in {"aarch64", "arm64"}
    flags = host_resources.cpu_flags(cpuinfo or None)
    named = [name for flag, name in _NAMED_FLAGS.items() if flag in flags]
    found = " ".join((machine, *named))
    needed = "x86-64 or arm64" if on_gpu else "arm64 with NEON and dot products" if arm else "x86-64 with AVX2"
    missing = "" if on_gpu else engine_settings.missing_instructions(flags, machine)
    if missing:
        yield fail("processor", f"{found}, without {missing}", needed, "use another box, or a GPU (docs/platforms.md)")
    elif arm and not on_gpu and "bf16" not in flags:
        fix = "where the engine ends with `Illegal instruction`: the image was built for newer ones (docs/platforms.md)"
        yield warn("processor", f"{found}, without bfloat16", needed, fix)
    else:
        yield ok("processor", found, needed)


def check_kernel(release: str = "") -> Iterator[CheckResult]:
    """Check for WSL: version 1 has no kernel of Linux. `release` is of uname, this box's own where empty."""
    release = release or platform.release()
    if re.search(r"microsoft", release, re.IGNORECASE):
        # As Microsoft names them: 4.4.0-19041-Microsoft, 6.6.87.2-microsoft-standard-WSL2.
        if "WSL2" in release or "microsoft-standard" in release:
            yield ok("kernel", f"{release} (WSL2)", "Linux; what differs: docs/platforms.md")
        else:
            yield fail("kernel", f"{release} (WSL1)", "Linux or WSL2", "wsl --set-version DISTRIBUTION 2")
    else:
        yield ok("kernel", release, "Linux")


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


def _line(file: str, start: str) -> str:
    """First line of a file that begins with `start`; empty for none."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(start)), "")
