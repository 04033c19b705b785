"""Prometheus itself: bounded storage, no dead targets, scrapes that a busy engine answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from tests.rig.running_stack import ROOT

if TYPE_CHECKING:
    from tests.rig.running_stack import Stack
    from tests.rig.traffic import Run

pytestmark = pytest.mark.timeout(600)
CONFIGURATION = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())


def test_storage_is_bounded(stack: Stack) -> None:
    assert stack.value("prometheus_tsdb_retention_limit_seconds") == 30 * 86400
    assert stack.value("prometheus_tsdb_retention_limit_bytes") == 5 * 2**30


def test_absent_services_leave_no_dead_target(stack: Stack) -> None:
    targets = stack.prometheus("targets", state="active")["activeTargets"]
    assert {target["labels"]["job"] for target in targets} == {"prometheus", "vllm", "locust"}
    assert [target["scrapeUrl"] for target in targets if target["health"] != "up"] == []


def test_services_are_found_by_dns(calm_run: Run) -> None:
    named = {job["job_name"] for job in CONFIGURATION["scrape_configs"] if "dns_sd_configs" in job}
    assert named == {job["job_name"] for job in CONFIGURATION["scrape_configs"]} - {"prometheus"}
    # Nobody told Prometheus of the host's exporter, which came and went with the calm run.
    seen = calm_run.stack.prometheus(
        "query_range", query='up{job="node"}', start=calm_run.started, end=calm_run.ended, step=5
    )
    assert len(seen["result"]) == 1


def test_busy_engine_answers_scrapes_in_time(overload: Run) -> None:
    limit = int(CONFIGURATION["global"]["scrape_timeout"].removesuffix("s"))
    within = {"start": overload.started, "end": overload.ended, "step": 5}
    scrapes = {
        query: [
            float(value)
            for series in overload.stack.prometheus("query_range", query=query, **within)["result"]
            for _, value in series["values"]
        ]
        for query in ('up{job="vllm"}', 'scrape_duration_seconds{job="vllm"}')
    }
    answered, seconds = scrapes.values()
    # Some may be late where the box itself stood still.
    assert sum(answered) >= 0.9 * len(answered) > 0
    assert max(took for took, up in zip(seconds, answered, strict=True) if up) < limit


def test_creation_times_are_not_stored(calm_run: Run) -> None:
    engine = {"match[]": '{job="vllm", __name__=~".+_created"}', "start": calm_run.started}
    assert calm_run.stack.prometheus("series", **engine) == []
