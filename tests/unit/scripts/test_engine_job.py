from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import engine_job
import pytest
import settings as engine_settings

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
GPU = engine_settings.read({"ENGINE_DEVICE": "gpu", "MODEL_ID": "a/b"})


def test_gpu_memory_held_by_server() -> None:
    with pytest.raises(engine_settings.SettingError) as refused:
        engine_job.check_gpu_memory(GPU, [(8 * GIB, 80 * GIB)])
    said = str(refused.value)
    assert "8.0 of 80.0 GiB of GPU memory is free and 72.0 is needed" in said
    assert "docker compose stop vllm" in said
    assert "\n" not in said


def test_only_used_cards_need_memory() -> None:
    engine_job.check_gpu_memory(GPU, [(79 * GIB, 80 * GIB), (0, 80 * GIB)])
    with pytest.raises(engine_settings.SettingError):
        engine_job.check_gpu_memory(
            dataclasses.replace(GPU, tensor_parallel_size=2), [(79 * GIB, 80 * GIB), (0, 80 * GIB)]
        )


def test_cpu_needs_no_card() -> None:
    engine_job.check_gpu_memory(engine_settings.read({"MODEL_ID": "a/b"}), [(0, GIB)])


def test_missing_model_names_both_fixes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine_settings, "MODELS", tmp_path)
    with pytest.raises(engine_settings.SettingError, match=r"docker compose run --rm model.*VLLM_USE_MODELSCOPE=true"):
        engine_job.read({"MODEL_ID": "no/model"}, {})


def test_modelscope_only_for_missing_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine_settings, "MODELS", tmp_path)
    (tmp_path / "here/model").mkdir(parents=True)
    env = {"VLLM_USE_MODELSCOPE": "true"}
    for name, fetched in (("here/model", False), ("no/model", True)):
        assert engine_job.from_hub(engine_settings.read({"MODEL_ID": name}), env) is fetched


def test_folder_without_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(engine_settings.SettingError, match=r"has no config\.json"):
        engine_job.read({"MODEL_ID": str(tmp_path)}, {})
