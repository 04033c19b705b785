"""Every query that Grafana would send, read from the committed dashboards."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "docker/grafana"
DATASOURCE = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
# Grafana: at least four scrapes, whose interval the data source names.
RATE_INTERVAL = f"{4 * int(DATASOURCE['jsonData']['timeInterval'].removesuffix('s'))}s"


@dataclass(frozen=True)
class Query:
    """One query: `where` names its dashboard and panel, `kind` is panel, annotation or variable."""

    where: str
    kind: str
    expr: str

    def filled(self, interval: str = RATE_INTERVAL) -> str:
        """Return the query as Prometheus gets it, with every model and every engine chosen."""
        text = self.expr.replace("$__rate_interval", interval).replace("$model", ".*").replace("$instance", ".*")
        assert "$" not in text, f"{self.where} uses a variable that is not known here: {text}"
        return text

    def label_values(self) -> tuple[str, str]:
        """Return selector and label of a variable's query."""
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", self.filled())
        assert found, self.expr
        return found[1], found[2]


def boards() -> dict[str, dict[str, Any]]:
    """Return all dashboards, by file name without its ending."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels that are no row headings."""
    yield from (panel for panel in board["panels"] if panel["type"] != "row")


def queries() -> list[Query]:
    """Return all queries of all dashboards."""
    return [query for name, board in boards().items() for query in _queries(name, board)]


def _queries(name: str, board: dict[str, Any]) -> Iterator[Query]:
    for panel in panels(board):
        for target in panel["targets"]:
            where = f"{name}: {panel['title']} ({panel['type']}): {target['refId']}"
            yield Query(where, "panel", target["expr"])
    for marker in board["annotations"]["list"]:
        yield Query(f"{name}: marker: {marker['name']}", "annotation", marker["expr"])
    for variable in board["templating"]["list"]:
        yield Query(f"{name}: variable: {variable['name']}", "variable", variable["query"])
