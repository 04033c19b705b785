"""Panels of a GPU and of an incident, which the tests' stack never has, on made-up series with known values."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.rig import dashboards
from tests.rig.promtool import in_prometheus

# Two cards in a data centre: profiling counters, beside the coarse ones that say something else.
PROFILED = {
    'DCGM_FI_PROF_GR_ENGINE_ACTIVE{job="gpu", gpu="0"}': "0.6",
    'DCGM_FI_PROF_GR_ENGINE_ACTIVE{job="gpu", gpu="1"}': "0.9",
    'DCGM_FI_PROF_DRAM_ACTIVE{job="gpu", gpu="0"}': "0.5",
    'DCGM_FI_PROF_DRAM_ACTIVE{job="gpu", gpu="1"}': "0.7",
    'DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{job="gpu", gpu="0"}': "0.25",
    'DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{job="gpu", gpu="1"}': "0.3",
    'DCGM_FI_DEV_GPU_UTIL{job="gpu", gpu="0"}': "100",
    'DCGM_FI_DEV_GPU_UTIL{job="gpu", gpu="1"}': "100",
    'DCGM_FI_DEV_MEM_COPY_UTIL{job="gpu", gpu="0"}': "11",
    'DCGM_FI_DEV_MEM_COPY_UTIL{job="gpu", gpu="1"}': "12",
    'DCGM_FI_DEV_FB_USED{job="gpu", gpu="0"}': "30000",
    'DCGM_FI_DEV_FB_USED{job="gpu", gpu="1"}': "60000",
    'DCGM_FI_DEV_FB_FREE{job="gpu", gpu="0"}': "50000",
    'DCGM_FI_DEV_FB_FREE{job="gpu", gpu="1"}': "20000",
    'DCGM_FI_DEV_GPU_TEMP{job="gpu", gpu="0"}': "70",
    'DCGM_FI_DEV_GPU_TEMP{job="gpu", gpu="1"}': "82",
    'DCGM_FI_DEV_MEMORY_TEMP{job="gpu", gpu="0"}': "75",
    'DCGM_FI_DEV_MEMORY_TEMP{job="gpu", gpu="1"}': "88",
    'DCGM_FI_DEV_SM_CLOCK{job="gpu", gpu="0"}': "1980",
    'DCGM_FI_DEV_SM_CLOCK{job="gpu", gpu="1"}': "1755",
    'DCGM_FI_DEV_POWER_USAGE{job="gpu", gpu="0"}': "300",
    'DCGM_FI_DEV_POWER_USAGE{job="gpu", gpu="1"}': "400",
    'DCGM_FI_DEV_XID_ERRORS{job="gpu", gpu="0"}': "0",
    'DCGM_FI_DEV_XID_ERRORS{job="gpu", gpu="1"}': "79",
    # 5000 tokens each 5 s: 1000/s.
    'vllm:generation_tokens_total{job="vllm", instance="a:8000", model_name="m"}': "0+5000",
}
# A GeForce card: no profiling counters, no sensor in its memory.
PLAIN = {
    'DCGM_FI_DEV_GPU_UTIL{job="gpu", gpu="0"}': "55",
    'DCGM_FI_DEV_MEM_COPY_UTIL{job="gpu", gpu="0"}': "40",
    'DCGM_FI_DEV_GPU_TEMP{job="gpu", gpu="0"}': "60",
    'DCGM_FI_DEV_MEMORY_TEMP{job="gpu", gpu="0"}': "0",
    'DCGM_FI_DEV_XID_ERRORS{job="gpu", gpu="0"}': "0",
}
INCIDENT = {
    'ALERTS{alertname="EngineDown", alertstate="firing", severity="critical"}': "1",
    'ALERTS{alertname="QueueBacklog", alertstate="pending", severity="warning", model_name="m"}': "1",
    'ALERTS{alertname="LoadTestRunning", alertstate="firing", severity="info"}': "1",
    # Seconds since 1970; the query is asked at 100 s.
    'ALERTS_FOR_STATE{alertname="EngineDown", severity="critical"}': "30",
    'ALERTS_FOR_STATE{alertname="QueueBacklog", severity="warning", model_name="m"}': "90",
    'ALERTS_FOR_STATE{alertname="LoadTestRunning", severity="info"}': "60",
    # 2 of 100 answers; scrapes are not counted.
    'http_requests_total{job="vllm", instance="a:8000", handler="/v1/completions", status="5xx"}': "0+2",
    'http_requests_total{job="vllm", instance="a:8000", handler="/v1/completions", status="2xx"}': "0+98",
    'http_requests_total{job="vllm", instance="a:8000", handler="/metrics", status="2xx"}': "0+1000",
}
CAPACITY = {
    'model:capacity_load_valid:ratio_rate2m{model_name="m"}': "0.85",
    'model:capacity_load_valid:ratio_rate2m{model_name="n"}': "0.2",
}
BOTH = ('{gpu="0"}', '{gpu="1"}')
EXPECTED: list[tuple[str, dict[str, str], dict[str, float]]] = [
    ("hardware: GPUs (stat): A", PROFILED, {"{}": 2}),
    ("hardware: Busiest GPU (stat): A", PROFILED, {"{}": 0.9}),
    ("hardware: Busiest GPU (stat): A", PLAIN, {"{}": 0.55}),
    ("hardware: GPU memory (stat): A", PROFILED, {"{}": 0.75}),
    ("hardware: Hottest GPU (stat): A", PROFILED, {"{}": 82}),
    ("hardware: Power (stat): A", PROFILED, {"{}": 700}),
    ("hardware: XID errors (stat): A", PROFILED, {"{}": 1}),
    ("hardware: XID errors (stat): A", PLAIN, {"{}": 0}),
    ("hardware: GPU busy (timeseries): A", PROFILED, dict(zip(BOTH, (0.6, 0.9), strict=True))),
    ("hardware: GPU busy (timeseries): A", PLAIN, {BOTH[0]: 0.55}),
    ("hardware: Memory bandwidth in use (timeseries): A", PROFILED, dict(zip(BOTH, (0.5, 0.7), strict=True))),
    ("hardware: Memory bandwidth in use (timeseries): A", PLAIN, {BOTH[0]: 0.4}),
    ("hardware: Tensor cores in use (timeseries): A", PROFILED, dict(zip(BOTH, (0.25, 0.3), strict=True))),
    ("hardware: Tensor cores in use (timeseries): A", PLAIN, {}),
    ("hardware: GPU memory (timeseries): A", PROFILED, dict(zip(BOTH, (0.375, 0.75), strict=True))),
    ("hardware: Temperature (timeseries): A", PROFILED, dict(zip(BOTH, (70, 82), strict=True))),
    ("hardware: Temperature (timeseries): B", PROFILED, dict(zip(BOTH, (75, 88), strict=True))),
    ("hardware: Temperature (timeseries): B", PLAIN, {}),
    ("hardware: SM clock (timeseries): A", PROFILED, dict(zip(BOTH, (1980, 1755), strict=True))),
    ("hardware: Power (timeseries): A", PROFILED, dict(zip(BOTH, (300, 400), strict=True))),
    ("hardware: Energy per output token (timeseries): A", PROFILED, {"{}": 0.7}),
    ("overview: Firing alerts (stat): A", INCIDENT, {"{}": 1}),
    ("overview: Firing alerts (stat): A", PLAIN, {"{}": 0}),
    ("overview: HTTP errors (stat): A", INCIDENT, {"{}": 0.02}),
    (
        "overview: What fires (table): A",
        INCIDENT,
        {'{alertname="EngineDown", severity="critical"}': 70, '{alertname="LoadTestRunning", severity="info"}': 40},
    ),
    ("overview: Capacity in use (gauge): A", CAPACITY, {"{}": 0.85}),
    ("overview: Capacity in use (gauge): A", PLAIN, {}),
    ("overview: marker: Critical alerts", INCIDENT, {'{alertname="EngineDown"}': 1}),
]
QUERIES = {query.where: query.filled() for query in dashboards.queries() if query.kind != "variable"}


def case(where: str, series: dict[str, str], expected: dict[str, float]) -> dict[str, Any]:
    # promtool compares to the last bit; the dashboards' arithmetic is right to the sixth digit.
    return {
        "name": where,
        "interval": "5s",
        "input_series": [{"series": name, "values": f"{value}x40"} for name, value in series.items()],
        "promql_expr_test": [
            {
                "expr": f"round(1000000 * ({QUERIES[where]})) / 1000000",
                "eval_time": "100s",
                "exp_samples": [{"labels": labels, "value": value} for labels, value in expected.items()],
            }
        ],
    }


def test_panels_show_known_series() -> None:
    tests = {"evaluation_interval": "5s", "rule_files": [], "tests": [case(*each) for each in EXPECTED]}
    done = in_prometheus("cat >/tmp/panels.yaml && promtool test rules /tmp/panels.yaml", stdin=yaml.safe_dump(tests))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("where", [where for where, text in QUERIES.items() if "DCGM_" in text])
def test_every_gpu_panel_has_a_case(where: str) -> None:
    assert where in {name for name, _, _ in EXPECTED}
