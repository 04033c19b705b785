"""Memory and CPU instruction sets available to the container."""

from __future__ import annotations

from pathlib import Path


def available_memory_bytes() -> int:
    """Free memory for the container: the host's, or the container's limit where that is less."""
    meminfo = Path("/proc/meminfo").read_text()
    fields = dict(line.split(":", 1) for line in meminfo.splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
            available = min(available, int(text))
    return available


def cpu_flags(cpuinfo: str | None = None) -> set[str]:
    """Instruction sets of the first CPU, as the kernel names them; x86-64 has `flags`, arm64 `Features`."""
    text = Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo
    lines = (line.partition(":") for line in text.splitlines())
    return set(next((value for name, _, value in lines if name.strip() in {"flags", "Features"}), "").split())
