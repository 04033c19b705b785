"""Number of this engine among several on one box, and its share: GPUs and a cache folder, or cores."""

from __future__ import annotations

import fcntl
import functools
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from settings import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from settings import Settings

MOST = 256  # engines on one box
CLAIMS = Path("/cache/engines")  # on a volume that the engines of one host share


def own_number(names: str, resolve: Callable[[str], set[str]], own: set[str]) -> int:
    """Number in this container's name, which Compose forms as `names` followed by 1, 2, ...

    `resolve` returns a name's addresses, `own` has this container's. Raises SettingError.
    """
    for number in range(1, MOST + 1):
        if resolve(f"{names}{number}") & own:
            return number
    raise SettingError(f"ENGINE_NAMES={names} names no container with this one's address: start it with Compose")


@functools.cache
def claimed_number(folder: Path, engines: int) -> int | None:
    """Claim the first free number of 1 to `engines` on this host; None when all are taken.

    A file lock holds it until this process ends. For Swarm, which numbers tasks over all hosts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, engines + 1):
        claim = os.open(folder / str(number), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(claim)
        else:
            return number
    return None


def addresses(name: str) -> set[str]:
    """IPv4 addresses of `name`; empty when it does not resolve."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None, socket.AF_INET)}
    except OSError:
        return set()


def cards() -> int | None:
    """GPUs that this container sees, or None where they have no device files (WSL)."""
    return len(list(Path("/dev").glob("nvidia[0-9]*"))) or None


def environment(settings: Settings, env: Mapping[str, str], number: int, cards: int | None) -> dict[str, str]:
    """Environment of engine `number`: GPUs and a cache folder of its own.

    Raises SettingError when the box has too few cards.
    """
    each = settings.tensor_parallel_size
    last = number * each
    count = len(settings.gpu_ids) or cards
    if count is not None and last > count:
        there = f"GPU_IDS has {count}" if settings.gpu_ids else f"{count} are there"
        raise SettingError(
            f"engine {number} with TENSOR_PARALLEL_SIZE={each} needs {last} GPUs and {there}: "
            f"set ENGINES to {count // each} or less"
        )
    ids = settings.gpu_ids or tuple(map(str, range(last)))
    root, own = Path(env.get("VLLM_CACHE_ROOT", "/cache/vllm")), f"engine-{number}"
    return {
        **_visible(ids[last - each : last], env),
        "VLLM_CACHE_ROOT": str(root if root.name == own else root / own),
    }


def _visible(ids: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """Variables that make these cards the only ones, in nvidia-smi's order: CUDA's own puts the fastest first.

    vLLM reads the first on NVIDIA's and AMD's cards, the second on Intel's (vllm/platforms, `device_control_env_var`).
    """
    return {
        **dict.fromkeys(("CUDA_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"), ",".join(ids)),
        "CUDA_DEVICE_ORDER": env.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
    }


def chosen(settings: Settings, env: Mapping[str, str]) -> dict[str, str]:
    """Environment of an engine that is alone: the cards of GPU_IDS, or nothing. Raises SettingError for too few."""
    ids, each = settings.gpu_ids, settings.tensor_parallel_size
    if not ids:
        return {}
    if len(ids) < each:
        raise SettingError(f"TENSOR_PARALLEL_SIZE={each} and GPU_IDS has {len(ids)}: name as many cards")
    return _visible(ids, env)


@functools.cache
def cores() -> list[frozenset[int]]:
    """Cores that this container may use, in order, each with its logical CPUs.

    Cached: `assign` narrows the affinity, and an engine that restarts must not divide the rest again.
    """
    allowed = os.sched_getaffinity(0)
    found: dict[str, set[int]] = {}
    for cpu in sorted(allowed):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        name = siblings.read_text().strip() if siblings.exists() else str(cpu)
        found.setdefault(name, set()).add(cpu)
    return [frozenset(cpus) for cpus in found.values()]


def share(cores: Sequence[frozenset[int]], number: int, engines: int) -> Sequence[frozenset[int]]:
    """Cores of engine `number` of `engines`: an even, contiguous share, at least one core."""
    place, count = (number - 1) % engines, len(cores)
    if count < engines:
        return [cores[place % count]]
    return cores[place * count // engines : (place + 1) * count // engines]


def assign(settings: Settings) -> None:
    """Restrict this engine to its share of the box, where several engines share it. Raises SettingError."""
    names = os.environ.get("ENGINE_NAMES")
    if settings.device == "cpu" and "VLLM_CPU_OMP_THREADS_BIND" in os.environ:
        return  # by hand
    if names:
        number = own_number(names, addresses, addresses(socket.gethostname()))
        if settings.device == "gpu":
            os.environ.update(environment(settings, os.environ, number, cards()))
        else:
            _keep_to(share(cores(), number, int(os.environ["ENGINES"])))
    elif settings.device == "gpu":  # Swarm assigns the cards itself
        os.environ.update(chosen(settings, os.environ))
    else:
        engines = _engines_per_host()
        claimed = claimed_number(CLAIMS, engines) if engines > 1 else None
        if claimed is not None:
            _keep_to(share(cores(), claimed, engines))


def _engines_per_host() -> int:
    text = os.environ.get("ENGINES_PER_HOST") or "1"
    if not (text.isascii() and text.isdecimal() and len(text) <= 3 and 1 <= int(text) <= MOST):
        raise SettingError(f"ENGINES_PER_HOST={text} is no number from 1 to {MOST}")
    return int(text)


def _keep_to(own: Sequence[frozenset[int]]) -> None:
    # vLLM binds its threads to the first cores that it may use: without this, two engines would share them.
    os.sched_setaffinity(0, frozenset().union(*own))
    if len(own) == 1:
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")  # vLLM's default reserves one core
