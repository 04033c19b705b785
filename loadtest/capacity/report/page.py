"""`report.html` of a search, and the page that compares several: one file each that needs no network."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]  # no stubs exist

from loadtest.capacity.gate import change, differences
from loadtest.capacity.report.charts import curve_charts, search_charts
from loadtest.capacity.terminal import headline, slo_text, users_text, workload_text
from loadtest.report.page import figure_text, trusted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Latencies = dict[int, list[tuple[float | None, float | None]]]


def render_capacity(summary: Mapping[str, Any], latencies: Latencies) -> str:
    """Return the page of one search. `latencies`: stage number to (TTFT, TPOT) in ms of requests, None in misses."""
    return _render(
        "capacity.html",
        [*curve_charts({"": summary}), *search_charts(summary)],
        summary=summary,
        headline=headline(summary),
        slo=slo_text(summary["run"]["slo"]),
        workload=workload_text(summary["run"]),
        users=users_text(summary["capacity"]["users"]),
        started=_date(summary["run"]["started"]),
        settings=_flat(summary["run"]),
        latencies=[
            {"rate": stage["rate"], "number": stage["number"], "requests": latencies[stage["number"]]}
            for stage in sorted(summary["stages"], key=lambda stage: stage["rate"])
            if not stage["void"] and latencies.get(stage["number"])
        ],
    )


def render_comparison(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page that shows several results beside each other; the first is what the others are held against."""
    (first, old), *others = results.items()
    return _render(
        "comparison.html",
        curve_charts(results),
        results=results,
        headlines={name: headline(summary) for name, summary in results.items()},
        changes={name: change(old, summary).drop_text() for name, summary in others},
        first=first,
        slo=slo_text(old["run"]["slo"]),
        workload=workload_text(old["run"]),
        differences={name: list(differences(old["run"], summary["run"])) for name, summary in others},
    )


def _render(template: str, charts: Iterable[Any], **values: Any) -> str:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("loadtest.capacity.report"), PackageLoader("loadtest.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["figure"] = figure_text
    return environment.get_template(template).render(
        library=trusted(get_plotlyjs()),
        charts=[
            trusted(chart.to_html(full_html=False, include_plotlyjs=False, config={"responsive": True}))
            for chart in charts
        ],
        **values,
    )


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, part in value.items() for pair in _flat(part, f"{name}.{key}" if name else key)]
    return [(name, "-" if value in (None, "", []) else value)]
