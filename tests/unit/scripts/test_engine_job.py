from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import engine_job
import engine_settings
import pytest

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
GPU = engine_settings.read({"ENGINE_DEVICE": "gpu", "MODEL_ID": "a/b"})


def test_a_server_that_holds_the_gpus_memory_is_named_with_the_way_to_stop_it() -> None:
    with pytest.raises(engine_settings.SettingError) as refused:
        engine_job.check_gpu_memory(GPU, [(8 * GIB, 80 * GIB)])
    said = str(refused.value)
    assert "8.0 of 80.0 GiB of GPU memory is free and 72.0 is needed" in said
    assert "docker compose stop vllm" in said
    assert "\n" not in said


def test_a_free_card_is_enough_whatever_the_ones_beyond_hold() -> None:
    engine_job.check_gpu_memory(GPU, [(79 * GIB, 80 * GIB), (0, 80 * GIB)])
    with pytest.raises(engine_settings.SettingError):
        engine_job.check_gpu_memory(
            dataclasses.replace(GPU, tensor_parallel_size=2), [(79 * GIB, 80 * GIB), (0, 80 * GIB)]
        )


def test_on_a_cpu_no_card_is_asked_for() -> None:
    engine_job.check_gpu_memory(engine_settings.read({"MODEL_ID": "a/b"}), [(0, GIB)])


def test_a_model_that_is_not_there_is_said_with_both_ways_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine_settings, "MODELS", tmp_path)
    with pytest.raises(engine_settings.SettingError, match=r"docker compose run --rm model.*VLLM_USE_MODELSCOPE=true"):
        engine_job.read({"MODEL_ID": "no/model"}, {})


def test_modelscope_is_asked_only_for_what_is_not_on_the_volume(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine_settings, "MODELS", tmp_path)
    (tmp_path / "here/model").mkdir(parents=True)
    env = {"VLLM_USE_MODELSCOPE": "true"}
    for name, fetched in (("here/model", False), ("no/model", True)):
        assert engine_job.from_hub(engine_settings.read({"MODEL_ID": name}), env) is fetched


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(engine_settings.SettingError, match=r"has no config\.json"):
        engine_job.read({"MODEL_ID": str(tmp_path)}, {})
