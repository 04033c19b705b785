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
def test_alerts_have_severity_and_runbook(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"


def test_runbook_headings_match_alerts() -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)


@pytest.mark.parametrize("fires", [True, False])
def test_alerts_are_tested_both_ways(fires: bool) -> None:
    cases = [case for file in CASES for case in yaml.safe_load(file.read_text())["tests"]]
    checks = [check for case in cases for check in case.get("alert_rule_test", [])]
    tested = {check["alertname"] for check in checks if bool(check["exp_alerts"]) is fires}
    assert tested == set(ALERTS)


def test_recording_rules_have_tested_values() -> None:
    tested = "".join(file.read_text() for file in CASES)
    names = {rule["record"] for rule in rules("record")}
    assert [name for name in names if not re.search(rf"- expr: \S*{name}\b", tested)] == []


@pytest.mark.parametrize("record", [rule["record"] for rule in rules("record")])
def test_recording_rule_names(record: str) -> None:
    assert re.fullmatch(r"[a-z]+:[a-z0-9_]+:[a-z0-9_]+", record)
