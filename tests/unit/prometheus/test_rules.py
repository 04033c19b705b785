from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
RULES = ROOT / "docker/prometheus/rules"
CASES = sorted((ROOT / "tests/rules").glob("*.yaml"))


def rules(kind: str) -> list[dict[str, Any]]:
    found = []
    for file in RULES.glob("*.yaml"):
        for group in yaml.safe_load(file.read_text())["groups"]:
            found += [rule for rule in group["rules"] if kind in rule]
    assert found
    return found


ALERTS = {rule["alert"]: rule for rule in rules("alert")}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_what_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"


def test_every_alert_has_a_runbook_heading_and_no_heading_lacks_its_alert() -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)


@pytest.mark.parametrize("fires", [True, False])
def test_every_alert_has_a_case_where_it_fires_and_one_where_it_does_not(fires: bool) -> None:
    cases = [case for file in CASES for case in yaml.safe_load(file.read_text())["tests"]]
    checks = [check for case in cases for check in case.get("alert_rule_test", [])]
    tested = {check["alertname"] for check in checks if bool(check["exp_alerts"]) is fires}
    assert tested == set(ALERTS)


def test_every_recording_rule_has_a_computed_value() -> None:
    tested = "".join(file.read_text() for file in CASES)
    names = {rule["record"] for rule in rules("record")}
    assert [name for name in names if not re.search(rf"- expr: \S*{name}\b", tested)] == []


@pytest.mark.parametrize("record", [rule["record"] for rule in rules("record")])
def test_a_recording_rule_is_named_level_metric_operation(record: str) -> None:
    assert re.fullmatch(r"[a-z]+:[a-z0-9_]+:[a-z0-9_]+", record)
