from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import replica_resources
import settings as engine_settings
from settings import SettingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = {"MODEL_ID": "org/model", "ENGINE_DEVICE": "gpu"}
NAMES = {"box-vllm-1": {"10.0.0.4"}, "box-vllm-2": {"10.0.0.7"}, "box-vllm-3": {"10.0.0.5"}}


def resolve(name: str) -> set[str]:
    return NAMES.get(name, set())


def cards_of(number: int, each: int, cards: int | None = 8) -> str:
    asked = engine_settings.read({**MODEL, "TENSOR_PARALLEL_SIZE": str(each)})
    return replica_resources.environment(asked, {}, number, cards)["CUDA_VISIBLE_DEVICES"]


def test_number_by_own_address() -> None:
    assert replica_resources.own_number("box-vllm-", resolve, {"10.0.0.7"}) == 2
    assert replica_resources.own_number("box-vllm-", resolve, {"10.0.0.5", "172.18.0.9"}) == 3


def test_unknown_own_address_fails() -> None:
    with pytest.raises(SettingError, match="ENGINE_NAMES=box-vllm-"):
        replica_resources.own_number("box-vllm-", resolve, {"10.0.0.99"})


@pytest.mark.parametrize(("each", "engines"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_each_card_is_used_once(each: int, engines: int) -> None:
    taken = [card for number in range(1, engines + 1) for card in cards_of(number, each).split(",")]
    assert taken == [str(card) for card in range(8)]


def test_too_few_cards_name_the_limit() -> None:
    with pytest.raises(SettingError, match=r"engine 3 with TENSOR_PARALLEL_SIZE=2 needs 6 GPUs and 4 .*ENGINES to 2"):
        cards_of(3, 2, cards=4)


def test_missing_device_files_are_accepted() -> None:
    assert cards_of(3, 2, cards=None) == "4,5"


GPU = {**MODEL, "GPU_IDS": "3, GPU-45cbf7b3 5 0"}


def test_engines_share_the_chosen_cards() -> None:
    asked = engine_settings.read({**GPU, "TENSOR_PARALLEL_SIZE": "2"})
    given = [replica_resources.environment(asked, {}, number, 8) for number in (1, 2)]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in given] == ["3,GPU-45cbf7b3", "5,0"]
    # CUDA's own order is not that of nvidia-smi.
    assert {env["CUDA_DEVICE_ORDER"] for env in given} == {"PCI_BUS_ID"}
    with pytest.raises(SettingError, match=r"GPU_IDS has 4: set ENGINES to 2"):
        replica_resources.environment(asked, {}, 3, 8)


def test_chosen_cards_of_a_single_engine() -> None:
    asked = engine_settings.read({**MODEL, "CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"})
    assert replica_resources.chosen(asked, {})["CUDA_VISIBLE_DEVICES"] == "1"
    assert replica_resources.chosen(engine_settings.read(MODEL), {}) == {}
    two = engine_settings.read({**GPU, "GPU_IDS": "1", "TENSOR_PARALLEL_SIZE": "2"})
    with pytest.raises(SettingError, match="TENSOR_PARALLEL_SIZE=2 and GPU_IDS has 1"):
        replica_resources.chosen(two, {})


@pytest.mark.parametrize(
    "env", [{"GPU_IDS": "all"}, {"GPU_IDS": "0,0"}, {"GPU_IDS": "0;1"}, {"CUDA_VISIBLE_DEVICES": "-1"}]
)
def test_wrong_cards_name_the_setting(env: dict[str, str]) -> None:
    with pytest.raises(SettingError, match="=".join(*env.items())):
        engine_settings.read({**MODEL, **env})


def test_second_start_keeps_cards_and_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_resources, "addresses", lambda name: resolve(name) or {"10.0.0.7"})
    monkeypatch.setattr(replica_resources, "cards", lambda: 8)
    for name, value in {"ENGINE_NAMES": "box-vllm-", "VLLM_CACHE_ROOT": "/cache/vllm"}.items():
        monkeypatch.setenv(name, value)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")
    for _ in range(2):
        replica_resources.assign(engine_settings.read(MODEL))
        assert replica_resources.os.environ["CUDA_VISIBLE_DEVICES"] == "1"
        assert replica_resources.os.environ["VLLM_CACHE_ROOT"] == "/cache/vllm/engine-2"


def test_cache_folder_per_engine() -> None:
    asked = engine_settings.read(MODEL)
    folders = {
        replica_resources.environment(asked, {"VLLM_CACHE_ROOT": "/cache/vllm"}, number, 8)["VLLM_CACHE_ROOT"]
        for number in (1, 2, 3)
    }
    assert folders == {"/cache/vllm/engine-1", "/cache/vllm/engine-2", "/cache/vllm/engine-3"}


def test_each_core_is_used_once() -> None:
    cores = [frozenset({core, core + 8}) for core in range(8)]
    for engines in (1, 2, 3, 8):
        shares = [replica_resources.share(cores, number, engines) for number in range(1, engines + 1)]
        assert [core for share in shares for core in share] == cores
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_engines_than_cores() -> None:
    cores = [frozenset({0}), frozenset({1})]
    assert [replica_resources.share(cores, number, 4) for number in (1, 2, 3, 4)] == [
        [core] for core in (*cores, *cores)
    ]


def test_engine_beyond_the_count_has_cores() -> None:
    cores = [frozenset({0}), frozenset({1})]
    assert list(replica_resources.share(cores, 3, 2)) == [frozenset({0})]


def test_cores_follow_the_affinity() -> None:
    assert frozenset().union(*replica_resources.cores()) == replica_resources.os.sched_getaffinity(0)


def test_engine_keeps_to_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[object] = []
    monkeypatch.setattr(replica_resources, "cores", lambda: [frozenset({0, 2}), frozenset({1, 3})])
    monkeypatch.setattr(replica_resources, "own_number", lambda *_: 2)
    monkeypatch.setattr(replica_resources.os, "sched_setaffinity", lambda _, cpus: held.append(set(cpus)))
    monkeypatch.setenv("ENGINE_NAMES", "box-vllm-")
    monkeypatch.setenv("ENGINES", "2")
    monkeypatch.setenv("VLLM_CPU_NUM_OF_RESERVED_CPU", "1")  # so that monkeypatch restores it
    monkeypatch.delenv("VLLM_CPU_NUM_OF_RESERVED_CPU")
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    replica_resources.assign(engine_settings.read({**MODEL, "ENGINE_DEVICE": "cpu"}))
    assert held == [{1, 3}]
    assert replica_resources.os.environ["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "0"


def test_restarted_engine_keeps_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = {0, 1, 2, 3}
    held: list[set[int]] = []

    def hold(_: int, cpus: frozenset[int]) -> None:
        held.append(set(cpus))
        allowed.intersection_update(cpus)

    monkeypatch.setattr(replica_resources, "own_number", lambda *_: 1)
    monkeypatch.setattr(replica_resources.Path, "exists", lambda _: False)  # no hyper-threads
    monkeypatch.setattr(replica_resources.os, "sched_getaffinity", lambda _: set(allowed))
    monkeypatch.setattr(replica_resources.os, "sched_setaffinity", hold)
    monkeypatch.setenv("ENGINE_NAMES", "box-vllm-")
    monkeypatch.setenv("ENGINES", "2")
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    replica_resources.cores.cache_clear()
    try:
        for _ in range(2):
            replica_resources.assign(engine_settings.read({**MODEL, "ENGINE_DEVICE": "cpu"}))
    finally:
        replica_resources.cores.cache_clear()
    assert held == [{0, 1}, {0, 1}]


CLAIM = """
import pathlib, replica_resources, sys
print(replica_resources.claimed_number(pathlib.Path(sys.argv[1]), 2), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def claiming(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Another engine's process, and its number."""
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{CLAIM}"
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


def test_numbers_are_claimed_and_freed(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    with claiming(folder) as (first, process), claiming(folder) as (second, _), claiming(folder) as (third, _):
        assert (first, second, third) == ("1", "2", "None")
        process.kill()
        process.wait()
        with claiming(folder) as (next_one, _):
            assert next_one == "1"


@pytest.mark.parametrize(("claimed", "kept"), [(1, [{0}]), (2, [{1}]), (None, [])])
def test_swarm_engine_takes_its_share(
    monkeypatch: pytest.MonkeyPatch, claimed: int | None, kept: list[set[int]]
) -> None:
    held: list[object] = []
    monkeypatch.setattr(replica_resources, "cores", lambda: [frozenset({0}), frozenset({1})])
    monkeypatch.setattr(replica_resources, "claimed_number", lambda *_: claimed)
    monkeypatch.setattr(replica_resources.os, "sched_setaffinity", lambda _, cpus: held.append(set(cpus)))
    monkeypatch.setenv("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    for name in ("ENGINE_NAMES", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.delenv(name, raising=False)
    for engines in ("", "1", "2"):
        monkeypatch.setenv("ENGINES_PER_HOST", engines)
        replica_resources.assign(engine_settings.read({**MODEL, "ENGINE_DEVICE": "cpu"}))
        replica_resources.assign(engine_settings.read(MODEL))
    assert held == kept


@pytest.mark.parametrize("text", ["0", "-1", "many", "257", "9" * 30, "²"])
def test_engines_per_host_must_be_a_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ENGINES_PER_HOST", text)
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    with pytest.raises(SettingError, match="ENGINES_PER_HOST"):
        replica_resources.assign(engine_settings.read({**MODEL, "ENGINE_DEVICE": "cpu"}))


def test_single_engine_is_not_restricted(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = replica_resources.os.sched_getaffinity(0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0")
    for device, names in (("cpu", "box-vllm-"), ("gpu", ""), ("cpu", "")):
        monkeypatch.setenv("ENGINE_NAMES", names)
        replica_resources.assign(engine_settings.read({**MODEL, "ENGINE_DEVICE": device}))
        assert "CUDA_VISIBLE_DEVICES" not in replica_resources.os.environ
    assert replica_resources.os.sched_getaffinity(0) == allowed
