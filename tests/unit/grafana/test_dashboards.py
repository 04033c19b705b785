"""Requirements of Grafana and of readers on the dashboards, without a Grafana server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.rig import dashboards

if TYPE_CHECKING:
    from pathlib import Path

BOARDS = dashboards.boards()
PANELS = {
    f"{name}: {panel['title']} ({panel['type']})": panel
    for name, board in BOARDS.items()
    for panel in dashboards.panels(board)
}
# Fields of annotations that Grafana reads and the SDK's type lacks.
MARKER_FIELDS = ("titleFormat", "textFormat", "step", "useValueForTime")


def build(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(dashboards.GRAFANA / "build.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_committed_dashboards_are_current() -> None:
    assert BOARDS.keys() == {"overview", "engine", "load-test", "hardware"}
    done = build("--check")
    assert (done.returncode, done.stdout) == (0, "")


def test_changed_and_stray_files_are_named(tmp_path: Path) -> None:
    assert build("--folder", str(tmp_path)).returncode == 0
    assert build("--check", "--folder", str(tmp_path)).returncode == 0
    (tmp_path / "engine.json").write_text("{}")
    (tmp_path / "old.json").write_text("{}")
    (tmp_path / "overview.json").unlink()
    done = build("--check", "--folder", str(tmp_path))
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["old.json", "overview.json", "engine.json"]


@pytest.mark.parametrize("name", BOARDS)
def test_sdk_knows_every_field(name: str) -> None:
    board: dict[str, Any] = json.loads(json.dumps(BOARDS[name]))
    for marker in board["annotations"]["list"]:
        for field in MARKER_FIELDS:
            marker.pop(field)
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    for marker in again["annotations"]["list"]:
        marker.pop("builtIn")  # the SDK's default, absent in ours
    for shown in (*again["annotations"]["list"], *again["links"]):
        assert shown.pop("placement") == "inControlsMenu"  # the SDK's one value; ours are above the panels
    assert again == board


@pytest.mark.parametrize("name", BOARDS)
def test_panels_fill_the_grid(name: str) -> None:
    panels = BOARDS[name]["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    cells = [
        {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        for at in (panel["gridPos"] for panel in panels)
    ]
    for (one, first), (other, second) in combinations(enumerate(cells), 2):
        assert not first & second, (panels[one]["title"], panels[other]["title"])
    taken = set().union(*cells)
    assert taken == {(x, y) for x in range(24) for y in range(max(y for _, y in taken) + 1)}


@pytest.mark.parametrize("name", BOARDS)
def test_links_reach_all_other_dashboards(name: str) -> None:
    links = BOARDS[name]["links"]
    assert {link["url"] for link in links} == {f"/d/{board['uid']}" for other, board in BOARDS.items() if other != name}
    assert all(link["keepTime"] and link["includeVars"] for link in links)


@pytest.mark.parametrize("name", BOARDS)
def test_variables_use_engine_only_metric(name: str) -> None:
    variables = {variable["name"]: variable for variable in BOARDS[name]["templating"]["list"]}
    assert variables.keys() == {"model", "instance"}
    for variable in variables.values():
        assert variable["query"].startswith("label_values(vllm:num_requests_running")
        assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".*")
        assert variable["current"]["value"] == "$__all"


@pytest.mark.parametrize("where", PANELS)
def test_panel_has_description_unit_and_no_value(where: str) -> None:
    panel = PANELS[where]
    defaults = panel["fieldConfig"]["defaults"]
    units = [p["id"] for override in panel["fieldConfig"]["overrides"] for p in override["properties"]]
    assert panel["title"]
    assert "unit" in (defaults if panel["type"] != "table" else units)
    assert defaults["noValue"]
    if panel["type"] in {"stat", "gauge", "timeseries"}:
        [mapping] = defaults["mappings"]
        assert mapping["options"] == {"match": "null+nan", "result": {"text": defaults["noValue"]}}
    assert panel["datasource"] == {"type": "prometheus", "uid": dashboards.DATASOURCE["uid"]}
    references = [target["refId"] for target in panel["targets"]]
    assert all(references)
    assert len(references) == len(set(references))
    names = r"\b(?:vllm:|model:|instance:|loadtest_|node_|DCGM_|prometheus_|http_|process_|ALERTS)\w*"
    metrics = set(re.findall(names, panel_text(panel)))
    known = {metric.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for metric in metrics}
    assert not known or any(metric in panel["description"] for metric in known), known


@pytest.mark.parametrize("where", PANELS)
def test_units_are_known_to_grafana(where: str) -> None:
    config = PANELS[where]["fieldConfig"]
    given = [config["defaults"].get("unit")]
    given += [p["value"] for override in config["overrides"] for p in override["properties"] if p["id"] == "unit"]
    known = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
    for unit in filter(None, given):
        assert unit in known or unit.startswith("suffix:"), unit


def panel_text(panel: dict[str, Any]) -> str:
    return "\n".join(target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("where", PANELS)
def test_latency_panels_show_the_slo(where: str) -> None:
    panel = PANELS[where]
    if panel["type"] == "heatmap":
        return
    expressions = {target["refId"]: target["expr"] for target in panel["targets"]}
    for histogram, slo in {
        "time_to_first_token_seconds_bucket": "max(headroom:slo_ttft:seconds)",
        "request_time_per_output_token_seconds_bucket": "max(headroom:slo_tpot:seconds)",
    }.items():
        if histogram in panel_text(panel):
            assert slo in expressions.values()
    if panel["type"] == "stat" and "SLO" in expressions:
        [transformation] = panel["transformations"]
        mapping = {"fieldName": "SLO", "handlerKey": "threshold1"}
        assert transformation == {"id": "configFromData", "options": {"configRefId": "SLO", "mappings": [mapping]}}


@pytest.mark.parametrize("where", [where for where, panel in PANELS.items() if panel["type"] == "timeseries"])
def test_series_styles_are_consistent(where: str) -> None:
    overrides = PANELS[where]["fieldConfig"]["overrides"]
    matchers = {override["matcher"]["options"] for override in overrides}
    # Grafana matches a pattern without slashes against the whole name.
    assert matchers == {"SLO", "/^engine/", "/^client/"}


@pytest.mark.parametrize("query", dashboards.queries(), ids=lambda query: query.where)
def test_queries_aggregate_by_job(query: dashboards.Query) -> None:
    if query.kind == "variable":
        return
    for selector in re.findall(r"(?:vllm:|loadtest_|node_|DCGM_|process_|http_)\w+(\{[^}]*\})?", query.expr):
        assert 'job="' in selector
    windows = set(re.findall(r"\[([^]]+)\]", query.expr))
    # Restarts are rare, and invisible in the last seconds.
    assert windows <= ({"15m"} if "changes(" in query.expr else {"$__rate_interval"})
    assert "avg" not in query.expr  # averages of percentiles or engines are not what users see


def test_overview_starts_with_problems() -> None:
    first = [panel for panel in dashboards.panels(BOARDS["overview"]) if panel["gridPos"]["y"] == 1]
    titles = ["Firing alerts", "Engines up", "TTFT p95", "TPOT p95", "Missed SLO", "HTTP errors", "Waiting", "KV cache"]
    assert [panel["title"] for panel in first] == titles
    for panel in first:
        colors = {step["color"] for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])}
        assert {"green", "red"} <= colors or {"green", "orange"} <= colors or "transformations" in panel


def test_tiles_use_instant_queries() -> None:
    # A range query would show the last request's value, however old.
    for panel in PANELS.values():
        for target in panel["targets"]:
            assert target["instant"] is (panel["type"] in {"stat", "gauge", "table"})
            assert target["range"] is not target["instant"]
