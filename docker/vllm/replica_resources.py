"""Which of several engines on one box this is, and its share of the box: GPUs and a folder of the cache, or cores."""

from __future__ import annotations

import fcntl
import functools
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from engine_settings import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engine_settings import Settings

MOST = 256  # engines on one box
CLAIMS = Path("/cache/engines")  # on a volume that the engines of one host share


def own_number(names: str, resolve: Callable[[str], set[str]], own: set[str]) -> int:
    """The number in this container's name: `names` followed by 1, 2, ... as Compose counts.

    `resolve` gives the addresses of a name, `own` are those of this container. Raises SettingError.
    """
    for number in range(1, MOST + 1):
        if resolve(f"{names}{number}") & own:
            return number
    raise SettingError(f"ENGINE_NAMES={names} names no container with this one's address: start it with Compose")


@functools.cache
def claimed_number(folder: Path, engines: int) -> int | None:
    """The first of 1 to `engines` that no other engine of this host has; None when all are taken.

    It is this process's until it ends, whatever ends it: a lock on a file. Swarm numbers its tasks over all hosts.
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
    """IPv4 addresses of `name`; none when it does not resolve."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None, socket.AF_INET)}
    except OSError:
        return set()


def cards() -> int | None:
    """GPUs that this container sees, or None where they have no device files (WSL)."""
    return len(list(Path("/dev").glob("nvidia[0-9]*"))) or None


def environment(settings: Settings, env: Mapping[str, str], number: int, cards: int | None) -> dict[str, str]:
    """What engine `number` adds to its environment, so that no two engines share a card or write the same cache.

    Raises SettingError when the box has too few cards.
    """
    each = settings.tensor_parallel_size
    last = number * each
    if cards is not None and last > cards:
        raise SettingError(
            f"engine {number} with TENSOR_PARALLEL_SIZE={each} needs {last} GPUs and {cards} are there: "
            f"set ENGINES to {cards // each} or less"
        )
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(last - each, last))),
        "VLLM_CACHE_ROOT": str(Path(env.get("VLLM_CACHE_ROOT", "/cache/vllm")) / f"engine-{number}"),
    }


@functools.cache
def cores() -> list[frozenset[int]]:
    """The box's cores that this container may use, in order, each with its logical CPUs.

    Looked at once: `assign` takes some away, and an engine that starts again must not share out what is left.
    """
    allowed = os.sched_getaffinity(0)
    found: dict[str, set[int]] = {}
    for cpu in sorted(allowed):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        name = siblings.read_text().strip() if siblings.exists() else str(cpu)
        found.setdefault(name, set()).add(cpu)
    return [frozenset(cpus) for cpus in found.values()]


def share(cores: Sequence[frozenset[int]], number: int, engines: int) -> Sequence[frozenset[int]]:
    """The cores of engine `number` of `engines`: neighbours, and as many for each as can be, at least one."""
    place, count = (number - 1) % engines, len(cores)
    if count < engines:
        return [cores[place % count]]
    return cores[place * count // engines : (place + 1) * count // engines]


def assign(settings: Settings) -> None:
    """Put this engine's share of the box into the environment, where several share it. Raises SettingError."""
    names = os.environ.get("ENGINE_NAMES")
    by_hand = "CUDA_VISIBLE_DEVICES" if settings.device == "gpu" else "VLLM_CPU_OMP_THREADS_BIND"
    if by_hand in os.environ:
        return
    if names:
        number = own_number(names, addresses, addresses(socket.gethostname()))
        if settings.device == "gpu":
            os.environ.update(environment(settings, os.environ, number, cards()))
        else:
            _keep_to(share(cores(), number, int(os.environ["ENGINES"])))
    elif settings.device == "cpu":  # Swarm hands out the cards itself
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
    # vLLM binds its threads to the first cores that it may use: two engines would both sit on the first, one starving.
    os.sched_setaffinity(0, frozenset().union(*own))
    if len(own) == 1:
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")  # by itself vLLM keeps one core free: there is none
