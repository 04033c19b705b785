"""`report.html` of a run: one file that needs no network, the verdict first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from loadtest.report.html_page import render
from loadtest.report.run_charts import make_charts
from loadtest.report.run_terminal import remarks, verdict_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from loadtest.results.run_results import RunResults

# Title and formula of each quantity.
QUANTITIES = {
    "ttft_ms": ("Time to first token", "request sent to the first non-empty delta"),
    "ttfat_ms": ("Time to first answer token", "the same without reasoning: text or a tool call"),
    "ttft_from_due_ms": ("TTFT from due time", "the same from the time at which the request was due"),
    "chunk_gap_ms": ("Chunk gap", "between consecutive non-empty deltas, pooled over requests"),
    "tpot_ms": ("Time per output token", "(last delta - first delta) / (output tokens - 1), per request"),
    "e2e_ms": ("End to end", "request sent to its last delta"),
    "e2e_from_due_ms": ("... from due time", "the same from the time at which the request was due"),
    "schedule_delay_ms": ("Sent late by", "due time to sent"),
}
FIGURES = ("count", "mean", "p50", "p90", "p95", "p99", "max")


def render_page(summary: Mapping[str, Any], results: RunResults, rows: Iterable[dict[str, str]]) -> str:
    """Return the HTML of the page; `rows` are those of `requests.csv`."""
    measured = [row for row in rows if row["measured"] == "1" and float(row["sent_at"]) >= results.measured_from]
    return render(
        "loadtest.report",
        "report.html",
        make_charts(summary, results, measured),
        summary=summary,
        headline=verdict_text(summary),
        remarks=remarks(summary),
        started=datetime.fromtimestamp(summary["run"]["started"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        quantities=QUANTITIES,
        figures=FIGURES,
        scopes={"all": summary, **(summary["endpoints"] if len(summary["endpoints"]) > 1 else {})},
    )
