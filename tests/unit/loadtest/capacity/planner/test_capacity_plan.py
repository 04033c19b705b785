from __future__ import annotations

import json
from dataclasses import asdict
from random import Random
from typing import TYPE_CHECKING

import pytest

from loadtest.capacity.answer import SloLimits
from loadtest.capacity.planner import plan_command
from loadtest.capacity.planner.capacity_plan import Box, _fewest, make_plan
from loadtest.capacity.planner.fleet_simulation import ForecastLoad, simulate_fleet
from loadtest.capacity.simulation.engine_spec import EngineSpec
from loadtest.input_error import InputError

if TYPE_CHECKING:
    from pathlib import Path

SPEC = EngineSpec(max_num_seqs=8, step_s=0.02, noise=0.0)
LIMITS = SloLimits(ttft_s=0.5, tpot_s=0.05)
BOX = Box(SPEC, LIMITS, 0.95, low=14.8, mid=15.5, high=16.2, prompt_tokens=64, output_tokens=22)


def load(rate: float, seconds: float, peak: float = 1.0) -> ForecastLoad:
    """Return Poisson arrivals, `peak` times as many in the middle third."""
    random, times, at = Random(1), [], 0.0  # noqa: S311
    while True:
        inside = seconds / 3 <= at < 2 * seconds / 3
        at += random.expovariate(rate * (peak if inside else 1.0))
        if at > seconds:
            return ForecastLoad(times, [64] * len(times), [22] * len(times))
        times.append(at)


def test_one_box_carries_its_capacity() -> None:
    for rate, enough in ((12.0, True), (20.0, False)):
        windows = simulate_fleet(SPEC, 1, load(rate, 300), LIMITS, 100.0)
        assert (min(window.share for window in windows) >= 0.95) is enough


def test_each_request_in_one_window() -> None:
    recorded = load(30.0, 100)
    windows = simulate_fleet(SPEC, 3, recorded, LIMITS, 10.0)
    assert sum(window.requests for window in windows) == len(recorded.times)


def test_plan_covers_the_peak() -> None:
    plan = make_plan(BOX, load(20.0, 600, peak=3.0), 100.0)
    assert plan.peak_rate == pytest.approx(60, rel=0.1)
    assert 4 <= plan.boxes <= 6
    assert plan.fewest <= plan.boxes <= plan.most
    assert min(window.share for window in plan.windows) >= 0.95
    assert any(speed == "mid" and boxes == plan.boxes - 1 and share < 0.95 for speed, boxes, share in plan.tried)


def test_hopeless_load_is_refused() -> None:
    slow = ForecastLoad([float(index) for index in range(100)], [64] * 100, [22] * 100)
    impossible = Box(SPEC, SloLimits(ttft_s=0.001), 0.95, 1.0, 1.0, 1.0, 64, 22)
    with pytest.raises(InputError, match="too long for the SLO"):
        make_plan(impossible, slow, 50.0)


def test_other_lengths_give_a_note() -> None:
    other = ForecastLoad([float(second) for second in range(40)], [320] * 40, [22] * 40)
    (note,) = make_plan(BOX, other, 40.0).notes
    assert "prompts have 320 tokens" in note


def test_sparse_windows_give_a_note() -> None:
    times = [*(second / 10 for second in range(100)), 12.0, 45.0]  # windows of 10 s: 100 requests, 1, none twice, 1
    (note,) = make_plan(BOX, ForecastLoad(times, [64] * 102, [22] * 102), 10.0).notes
    assert note.startswith("2 of 3 windows have fewer than 20 requests")


def test_only_sparse_windows_are_refused() -> None:
    with pytest.raises(InputError, match=r"--window: none of 0.1 s has 20 requests"):
        make_plan(BOX, load(20.0, 300, peak=3.0), 0.1)


def result_file(folder: Path, **changed: object) -> Path:
    capacity = {
        "bound": "edge",
        "requests_per_second": {"low": 14.8, "mid": 15.5, "high": 16.2},
        "prompt_tokens_mean": 64.0,
        "output_tokens_mean": 22.0,
        "twin": {"spec": asdict(SPEC), "error": 0.05},
        **changed,
    }
    slo = {"ttft_ms": 500.0, "tpot_ms": 50.0, "e2e_ms": None, "percentile": 95.0}
    (folder / "capacity.json").write_text(
        json.dumps({"capacity": capacity, "verdict": {"valid": True}, "run": {"slo": slo}})
    )
    return folder


def trace_file(folder: Path) -> Path:
    rows = load(40.0, 120)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens", *(f"{time:.4f},64,22" for time in rows.times)]
    path = folder / "trace.csv"
    path.write_text("\n".join(lines))
    return path


def test_plan_prints_and_writes_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "plan.html"
    arguments = [str(result_file(tmp_path)), "--trace", str(trace_file(tmp_path)), "--window", "60"]
    assert plan_command.plan([*arguments, "--report", str(page)]) == 0
    assert "boxes for a peak of" in capsys.readouterr().out.replace("within the capacity's interval) ", "")
    text = page.read_text()
    assert "boxes" in text
    assert "Plotly" in text
    assert "http://" not in text.split("<body>")[1]


@pytest.mark.parametrize(
    ("changed", "reason"), [({"bound": "floor"}, "must be valid and end at an edge"), ({"twin": None}, "too little")]
)
def test_unusable_result_is_refused(tmp_path: Path, changed: dict[str, object], reason: str) -> None:
    result_file(tmp_path, **changed)
    with pytest.raises(InputError, match=reason):
        plan_command.read_box(tmp_path)


def test_bad_options_give_one_line(tmp_path: Path) -> None:
    arguments = [str(result_file(tmp_path)), "--trace", str(trace_file(tmp_path))]
    with pytest.raises(InputError, match="--window"):
        plan_command.plan([*arguments, "--window", "0"])
    with pytest.raises(InputError, match="RESULT"):
        plan_command.plan([str(tmp_path / "none.json"), *arguments[1:]])


@pytest.mark.parametrize("start", [1, 5, 20])
def test_smallest_number_of_boxes_is_found(start: int) -> None:
    for needed in range(1, 40):
        assert _fewest(lambda boxes, needed=needed: float(boxes >= needed), 0.95, start) == needed
