"""Rules and dashboards use only metrics that the services export.

tests/rules/metrics has the HELP and TYPE lines of each service's /metrics, captured from the running stack.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rig import dashboards

ROOT = Path(__file__).parents[3]
CAPTURED = ROOT / "tests/rules/metrics"
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}
# Created by Prometheus for every target and alert.
BUILT_IN = {
    *("up", "scrape_duration_seconds", "scrape_samples_post_metric_relabeling"),
    *("ALERTS", "ALERTS_FOR_STATE"),
}
# NVIDIA's exporter was not captured; these are in its default counters.
GPU = {
    *(f"DCGM_FI_DEV_{name}" for name in ("GPU_TEMP", "MEMORY_TEMP", "GPU_UTIL", "MEM_COPY_UTIL", "SM_CLOCK")),
    *(f"DCGM_FI_DEV_{name}" for name in ("XID_ERRORS", "POWER_USAGE", "FB_USED", "FB_FREE")),
    *(f"DCGM_FI_PROF_{name}" for name in ("GR_ENGINE_ACTIVE", "PIPE_TENSOR_ACTIVE", "DRAM_ACTIVE")),
}
# Names that vLLM has removed: a dashboard with them shows "No data".
REMOVED = (
    "vllm:gpu_cache_usage_perc",
    "vllm:cpu_cache_usage_perc",
    "vllm:num_requests_swapped",
    "vllm:time_per_output_token_seconds",
    "vllm:gpu_prefix_cache_hits_total",
    "vllm:gpu_prefix_cache_queries_total",
    "vllm:avg_prompt_throughput_toks_per_s",
    "vllm:avg_generation_throughput_toks_per_s",
    "vllm:time_in_queue_requests",
)


def exported() -> set[str]:
    names = set(BUILT_IN | GPU)
    for file in CAPTURED.glob("*.txt"):
        types = re.findall(r"^# TYPE (\S+) (\w+)$", file.read_text(), re.MULTILINE)
        assert types, file
        names |= {name + suffix for name, kind in types for suffix in SUFFIXES.get(kind, ("",))}
    return names


def groups() -> list[dict[str, Any]]:
    files = (ROOT / "docker/prometheus/rules").glob("*.yaml")
    return [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]


def queries() -> dict[str, str]:
    found = {rule.get("alert") or rule["record"]: rule["expr"] for group in groups() for rule in group["rules"]}
    for query in dashboards.queries():
        found[query.where] = query.label_values()[0] if query.kind == "variable" else query.filled()
    assert len(found) > 200
    return found


def metrics(query: str) -> set[str]:
    """Metric names in a query: words that are neither functions nor labels."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]', " ", query)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    words = re.findall(r"(?<![\w:.$])[a-zA-Z_:][\w:]*(?!\w*\s*\()", bare)
    return {word for word in words if ":" in word or "_" in word or word == "up" or word.isupper()}


QUERIES = queries()


@pytest.mark.parametrize("query", QUERIES)
def test_queries_use_exported_metrics(query: str) -> None:
    recorded = {rule["record"] for group in groups() for rule in group["rules"] if "record" in rule}
    recorded |= set(re.findall(r"record: (\S+)", (ROOT / "docker/prometheus/start.sh").read_text()))
    named = metrics(QUERIES[query])
    assert named
    assert named - exported() - recorded == set()


@pytest.mark.parametrize("name", REMOVED)
def test_queries_use_no_removed_metric(name: str) -> None:
    assert [query for query, text in QUERIES.items() if name in metrics(text)] == []
    assert name not in exported()
