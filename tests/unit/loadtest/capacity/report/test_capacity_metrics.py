from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest

from loadtest.capacity.answer import SearchSettings
from loadtest.capacity.report.capacity_metrics import CapacityMetrics, newest_capacity
from loadtest.capacity.report.progress import SearchProgress
from loadtest.capacity.stage import StagePlan
from tests.rig.capacity_objects import request

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def summary(
    mid: float, started: float, *, valid: bool = True, settings: dict[str, str] | None = None
) -> dict[str, Any]:
    rates = {"low": mid * 0.95, "mid": mid, "high": mid * 1.05}
    return {
        "capacity": {
            "requests_per_second": rates,
            "output_tokens_per_second": {name: rate * 16 for name, rate in rates.items()},
            "prompt_tokens_mean": 64.2,
            "output_tokens_mean": 15.8,
            "bound": "edge",
        },
        "verdict": {"valid": valid, "reasons": []},
        "run": {
            "started": started,
            "model": {"name": "m"},
            "workload": {"endpoint": "chat"},
            "engine": {"cache_config": {"block_size": "16"}, "settings": settings or {}},
        },
    }


def text(metrics: CapacityMetrics) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    return generate_latest(registry).decode()


def write(folder: Path, content: Any) -> None:
    folder.mkdir()
    (folder / "capacity.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_newest_valid_result_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a", summary(5.0, 100.0))
    write(tmp_path / "b", summary(7.0, 200.0))
    write(tmp_path / "c", summary(9.0, 300.0, valid=False))
    write(tmp_path / "d", "{half a fi")
    page = text(CapacityMetrics(tmp_path))
    labels = 'endpoint="chat",model_name="m",output_tokens="16",prompt_tokens="64"'
    assert f'headroom_capacity_requests_per_second{{bound="mid",{labels}}} 7.0' in page
    assert f'headroom_capacity_output_tokens_per_second{{bound="mid",{labels}}} 112.0' in page
    assert 'headroom_capacity_timestamp_seconds{model_name="m"} 200.0' in page
    assert 'headroom_capacity_engine_info{block_size="16",cache_dtype="None"' in page


def test_no_result_no_capacity(tmp_path: Path) -> None:
    assert newest_capacity(tmp_path) is None
    assert "headroom_capacity_requests_per_second" not in text(CapacityMetrics(None))


def test_floor_is_reported_as_capacity() -> None:
    floor = summary(5.0, 1.0)
    floor["capacity"]["requests_per_second"] = {"low": 4.0, "mid": None, "high": None}
    metrics = CapacityMetrics(None)
    metrics.add_result(floor)
    page = text(metrics)
    assert 'bound="mid",endpoint="chat",model_name="m",output_tokens="16",prompt_tokens="64"} 4.0' in page
    assert (
        'bound="high",endpoint="chat",model_name="m",output_tokens="16",prompt_tokens="64"} 5'
        not in page.split("headroom_capacity_output")[0]
    )


def test_changed_settings_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_EXTRA_ARGS", "--max-num-seqs=4")
    metrics = CapacityMetrics(None)
    metrics.add_result(summary(5.0, 1.0, settings={"VLLM_EXTRA_ARGS": "--max-num-seqs=8"}))
    assert 'headroom_capacity_settings_match{model_name="m"} 0.0' in text(metrics)
    metrics.add_result(summary(5.0, 1.0, settings={"VLLM_EXTRA_ARGS": "--max-num-seqs=4"}))
    assert 'headroom_capacity_settings_match{model_name="m"} 1.0' in text(metrics)


def test_invalid_result_is_ignored() -> None:
    metrics = CapacityMetrics(None)
    metrics.add_result(summary(5.0, 1.0))
    metrics.add_result(summary(9.0, 2.0, valid=False))
    assert 'bound="mid",endpoint="chat",model_name="m",output_tokens="16",prompt_tokens="64"} 5.0' in text(metrics)


def test_running_search_has_metrics() -> None:
    metrics = CapacityMetrics(None)
    progress = SearchProgress(SearchSettings(), 100.0)
    metrics.follow(progress)
    plan = StagePlan(0, 4.0, "probe", 1.0, 8, 40)
    progress.begin_stage(plan)
    progress.update_stage(plan, [request(good=place > 0) for place in range(10)])
    page = text(metrics)
    assert "headroom_capacity_search_running 1.0" in page
    assert "headroom_capacity_search_rate 4.0" in page
    assert 'headroom_capacity_search_good_ratio{bound="mid"} 0.9' in page
