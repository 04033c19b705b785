"""HTML pages of a search and of a comparison: one file each, without network."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from loadtest.capacity.report.capacity_charts import curve_charts, search_charts
from loadtest.capacity.report.capacity_terminal import cause_text, headline, slo_text, users_text, workload_text
from loadtest.capacity.report.regression import change, differences
from loadtest.report.html_page import render

if TYPE_CHECKING:
    from collections.abc import Mapping

Latencies = dict[int, list[tuple[float | None, float | None]]]


def render_capacity(summary: Mapping[str, Any], latencies: Latencies) -> str:
    """Return the page of one search. `latencies`: (TTFT, TPOT) in ms by stage, None if not ended ok."""
    return render(
        "loadtest.capacity.report",
        "capacity.html",
        [*curve_charts({"": summary}), *search_charts(summary)],
        summary=summary,
        headline=headline(summary),
        cause_text=cause_text,
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
    """Return the page that compares several results with the first one."""
    (first, old), *others = results.items()
    return render(
        "loadtest.capacity.report",
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


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, part in value.items() for pair in _flat(part, f"{name}.{key}" if name else key)]
    return [(name, "-" if value in (None, "", []) else value)]
