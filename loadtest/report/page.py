"""`report.html`: one file that needs no network, the verdict first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]  # no stubs exist

from loadtest.report.charts import make_charts
from loadtest.report.terminal import cut_off_text, verdict_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from loadtest.results import Results

# What is printed, and the formula beside it.
QUANTITIES = {
    "ttft_ms": ("Time to first token", "request sent to the first non-empty delta"),
    "ttft_from_due_ms": ("... from due time", "the same from the time at which the request was due"),
    "chunk_gap_ms": ("Chunk gap", "between consecutive non-empty deltas, pooled over requests"),
    "tpot_ms": ("Time per output token", "(last delta - first delta) / (output tokens - 1), per request"),
    "e2e_ms": ("End to end", "request sent to its last delta"),
    "e2e_from_due_ms": ("... from due time", "the same from the time at which the request was due"),
    "schedule_delay_ms": ("Sent late by", "due time to sent"),
}
FIGURES = ("count", "mean", "p50", "p90", "p95", "p99", "max")


def render_page(summary: Mapping[str, Any], results: Results, rows: Iterable[dict[str, str]]) -> str:
    """Return the whole page; `rows` are those of `requests.csv`."""
    measured = [row for row in rows if row["measured"] == "1" and float(row["sent_at"]) >= results.measured_from]
    charts = make_charts(summary, results, measured)
    environment = Environment(
        loader=PackageLoader("loadtest.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["figure"] = figure_text
    environment.filters["cut_off"] = cut_off_text
    return environment.get_template("report.html").render(
        summary=summary,
        headline=verdict_text(summary),
        started=datetime.fromtimestamp(summary["run"]["started"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        quantities=QUANTITIES,
        figures=FIGURES,
        scopes={"all": summary, **(summary["endpoints"] if len(summary["endpoints"]) > 1 else {})},
        library=trusted(get_plotlyjs()),
        charts=[
            trusted(chart.to_html(full_html=False, include_plotlyjs=False, config={"responsive": True}))
            for chart in charts
        ],
    )


def trusted(markup: str) -> Markup:
    """Mark what plotly wrote as safe: texts in it are JSON, which plotly escapes for HTML."""
    return Markup(markup)  # noqa: S704  # see above


def figure_text(value: float | None, digits: int = 1) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
