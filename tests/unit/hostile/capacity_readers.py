"""Hostile input of the capacity search: damaged or foreign `capacity.json` files."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from loadtest.capacity.planner.plan_command import read_box
from loadtest.capacity.report.capacity_metrics import CapacityMetrics
from loadtest.capacity.report.compare import compare
from loadtest.capacity.report.regression import check_same, gate, read_result
from loadtest.input_error import InputError
from tests.unit.hostile.hostile_input import Hostile, scratch, scratch_file

GOOD: dict[str, Any] = {
    "capacity": {
        "bound": "edge",
        "requests_per_second": {"low": 1.0, "mid": 1.5, "high": 2.0},
        "ended": "interval",
        "confidence": 0.95,
        "output_tokens_per_second": {"low": 10.0, "mid": 15.0, "high": 20.0},
        "prompt_tokens_mean": 64.0,
        "output_tokens_mean": 16.0,
    },
    "verdict": {"valid": True, "reasons": [], "limit": None},
    "run": {
        "id": "a",
        "started": 1_700_000_000.0,
        "workload": {"endpoint": "chat", "prompt_tokens": "64", "output_tokens": "16", "dataset": None},
        "slo": {"ttft_ms": 500.0, "tpot_ms": 50.0, "e2e_ms": None, "percentile": 95.0},
        "model": {"name": "m"},
        "engine": {"settings": {}, "cache_config": {}},
    },
    "stages": [
        {
            "number": 0,
            "rate": 1.5,
            "requests": 100,
            "share": 0.95,
            "share_low": 0.9,
            "share_high": 0.98,
            "void": [],
            "ttft_ms": {"p50": 100.0, "p95": 400.0, "p99": None},
            "tpot_ms": {"p50": 20.0, "p95": 40.0, "p99": None},
            "goodput_requests_per_s": 1.4,
            "output_tokens_per_s": 24.0,
        }
    ],
}
_FLOOR = GOOD["capacity"] | {"bound": "floor", "requests_per_second": {"low": 1.0, "mid": None, "high": None}}
_SEEDS = [
    json.dumps(GOOD).encode(),
    json.dumps(GOOD | {"capacity": _FLOOR}).encode(),
    json.dumps(GOOD).replace("1.5", "-1.5").encode(),
    json.dumps(GOOD).replace("1.5", "NaN").encode(),
    json.dumps(GOOD).replace("1.5", '"1.5"').encode(),
    json.dumps(GOOD | {"capacity": _FLOOR}).replace('"mid": null', '"mid": "1.5"').encode(),
    json.dumps(GOOD).replace('"edge"', "[]").encode(),
    b'{"verdict":{"valid":1},"capacity":{"requests_per_second":{"low":1}},"run":{}}',
    b"[" * 100_000,
]


def capacity_baseline(data: bytes) -> None:
    """Refuse a baseline in one line, or compare with it."""
    try:
        baseline = read_result(scratch_file("baseline.json", data), "--baseline")
        check_same(baseline, GOOD, "--baseline")
    except InputError as error:
        assert "\n" not in str(error)
        return
    passed, lines = gate(baseline, GOOD, 0.1)
    assert isinstance(passed, bool)
    assert lines


def capacity_reports(data: bytes) -> None:
    """Serve /metrics whatever lies in the folder of reports."""
    logging.getLogger("loadtest.capacity.report.capacity_metrics").setLevel(logging.ERROR)
    folder = scratch() / "reports"
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in (("a", json.dumps(GOOD).encode()), ("b", data)):
        (folder / name).mkdir(parents=True)
        (folder / name / "capacity.json").write_bytes(content)
    registry = CollectorRegistry()
    registry.register(CapacityMetrics(folder))
    assert b"headroom_capacity_requests_per_second" in generate_latest(registry)


def capacity_box(data: bytes) -> None:
    """Refuse a result in one line, or plan with it."""
    try:
        box = read_box(scratch_file("box.json", data))
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert 0 < box.low <= box.mid <= box.high


def capacity_comparison(data: bytes) -> None:
    """Refuse a result in one line, or show it beside another."""
    results = [scratch_file("old.json", json.dumps(GOOD).encode()), scratch_file("new.json", data)]
    page = scratch() / "comparison.html"
    page.unlink(missing_ok=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            compare([*map(str, results), "--report", str(page)])
    except InputError as error:
        assert "\n" not in str(error)
        assert not page.exists()
        return
    assert page.exists()


TARGETS: dict[str, Hostile] = {
    "capacity_baseline": Hostile(capacity_baseline, _SEEDS),
    "capacity_comparison": Hostile(capacity_comparison, _SEEDS),
    "capacity_reports": Hostile(capacity_reports, _SEEDS),
    "capacity_box": Hostile(capacity_box, _SEEDS),
}
