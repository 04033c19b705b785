"""Plots of the report, from the rows and the merged results."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from loadtest.report.html_page import new_figure, right_axis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import plotly.graph_objects as go  # type: ignore[import-untyped]  # no stubs exist

    from loadtest.results.run_results import RunResults

Row = dict[str, str]
# More points are thinned out evenly: a browser shows no more, and the file stays small.
_MOST_POINTS = 10_000
_COLOURS = {
    "chat": "#2a6fbb",
    "completions": "#d97b29",
    "client": "#2a6fbb",
    "server": "#7a7a7a",
    "ok": "#3a923a",
    "empty": "#c9b037",
    "filtered": "#7b4fa3",
    "error": "#c03d3e",
    "rejected": "#9372b2",
    "truncated": "#845b53",
    "timeout": "#d684bd",
    "cancelled": "#9a9a9a",
    "connect": "#1f1f1f",
}


def make_charts(summary: Mapping[str, Any], results: RunResults, rows: Sequence[Row]) -> list[go.Figure]:
    """Return the plots in the page's order; `rows` are the measured rows of `requests.csv`."""
    start = min((float(row["sent_at"]) for row in rows), default=0.0)
    ended = [row for row in rows if row["outcome"] == "ok"]
    return [
        _over_time(ended, start, "ttft_ms", "Time to first token", results.options.slo.ttft),
        _over_time(ended, start, "tpot_ms", "Time per output token", results.options.slo.tpot),
        _over_time(ended, start, "e2e_ms", "End-to-end latency", results.options.slo.e2e),
        _throughput(results, rows, start),
        _outcomes(rows, start),
        *(
            _distribution(ended, key, title)
            for key, title in (("ttft_ms", "Time to first token"), ("tpot_ms", "Time per output token"))
        ),
        _gaps(results),
        *_lateness(rows, start),
        *_client_and_server(summary),
    ]


def _group_by_endpoint(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row[key]:
            groups.setdefault(row["endpoint"], []).append(row)
    return groups


def _over_time(rows: Sequence[Row], start: float, key: str, title: str, limit: float | None) -> go.Figure:
    figure = new_figure(f"{title} by the time of sending", "seconds into the run", "ms")
    for endpoint, group in _group_by_endpoint(rows, key).items():
        kept = group[:: -(-len(group) // _MOST_POINTS)]
        figure.add_scattergl(
            x=[round(float(row["sent_at"]) - start, 3) for row in kept],
            y=[float(row[key]) for row in kept],
            mode="markers",
            name=endpoint,
            marker={"size": 4, "opacity": 0.6, "color": _COLOURS[endpoint]},
        )
    if limit is not None:
        figure.add_hline(y=limit * 1000, line_dash="dash", line_color="#c03d3e", annotation_text="SLO")
    figure.update_yaxes(rangemode="tozero")
    return figure


def _per_second(counts: Mapping[int, int], width: int) -> tuple[list[int], list[float]]:
    """Return the starts of bins of `width` seconds, and the mean count per second in each, empty bins included."""
    if not counts:
        return [], []
    bins: Counter[int] = Counter()
    for second, count in counts.items():
        bins[second // width] += count
    span = range(min(bins), max(bins) + 1)
    return [number * width for number in span], [bins[number] / width for number in span]


def _width(rows: Sequence[Row], start: float) -> int:
    """Return the bin width in seconds, so that a run has at most 150 bins."""
    last = max((float(row["sent_at"]) + float(row["duration_ms"]) / 1000 for row in rows), default=start)
    return max(1, math.ceil((last - start) / 150))


def _throughput(results: RunResults, rows: Sequence[Row], start: float) -> go.Figure:
    width = _width(rows, start)
    figure = new_figure("Throughput", "seconds into the run", "chunks per second")
    for endpoint, totals in sorted(results.measured.endpoints.items()):
        seconds, rates = _per_second({int(second - start): count for second, count in totals.deltas_at.items()}, width)
        figure.add_scatter(
            x=seconds, y=rates, name=f"{endpoint}: chunks with output", line={"color": _COLOURS[endpoint]}
        )
    ended = Counter(int(float(row["sent_at"]) + float(row["duration_ms"]) / 1000 - start) for row in rows)
    seconds, rates = _per_second(ended, width)
    figure.add_scatter(x=seconds, y=rates, name="requests ended", line={"color": "#555", "dash": "dot"}, yaxis="y2")
    figure.update_layout(yaxis2=right_axis("requests per second", rangemode="tozero"))
    figure.update_yaxes(rangemode="tozero")
    return figure


def _outcomes(rows: Sequence[Row], start: float) -> go.Figure:
    width = _width(rows, start)
    figure = new_figure("How requests ended, by the time of sending", "seconds into the run", "requests per second")
    counts: dict[str, Counter[int]] = {}
    for row in rows:
        counts.setdefault(row["outcome"], Counter())[int(float(row["sent_at"]) - start)] += 1
    for outcome, sent in sorted(counts.items(), key=lambda item: -item[1].total()):
        seconds, rates = _per_second(sent, width)
        figure.add_bar(
            x=seconds,
            y=rates,
            width=width,
            offset=0,
            name=f"{outcome} ({sent.total()})",
            marker_color=_COLOURS[outcome],
        )
    figure.update_layout(barmode="stack", showlegend=True)
    return figure


def _distribution(rows: Sequence[Row], key: str, title: str) -> go.Figure:
    figure = new_figure(f"{title}: share of requests up to a time", "ms (log)", "%")
    for endpoint, group in _group_by_endpoint(rows, key).items():
        values = sorted(float(row[key]) for row in group)
        step = -(-len(values) // 1000)
        points = [*range(step - 1, len(values), step), len(values) - 1]
        figure.add_scatter(
            x=[values[point] for point in points],
            y=[100 * (point + 1) / len(values) for point in points],
            name=f"{endpoint} (n={len(values)})",
            line={"color": _COLOURS[endpoint], "shape": "hv"},
        )
    figure.update_xaxes(type="log")
    figure.update_layout(showlegend=True)
    return figure


def _gaps(results: RunResults) -> go.Figure:
    figure = new_figure("Chunk gaps: share of gaps up to a time", "ms (log)", "%")
    for endpoint, totals in results.measured.endpoints.items():
        gaps = totals.distributions["chunk_gap"]
        if gaps.count:
            percents = [0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100]
            figure.add_scatter(
                x=[(gaps.percentile(percent) or 0.0) * 1000 for percent in percents],
                y=percents,
                name=f"{endpoint} (n={gaps.count})",
                mode="lines+markers",
                line={"color": _COLOURS[endpoint]},
            )
    figure.update_xaxes(type="log")
    figure.update_layout(showlegend=True)
    return figure


def _lateness(rows: Sequence[Row], start: float) -> list[go.Figure]:
    late = [row for row in rows if row["schedule_delay_ms"]]
    if not late:
        return []
    return [_over_time(late, start, "schedule_delay_ms", "Sent after it was due", None)]


def _client_and_server(summary: Mapping[str, Any]) -> list[go.Figure]:
    server = summary["server"]
    if server is None:
        return []
    figure = new_figure("Client beside server: tokens of the whole run", "", "tokens")
    names = ["prompt tokens", "output tokens"]
    figure.add_bar(
        x=names,
        y=[server["client_prompt_tokens"], server["client_generation_tokens"]],
        name="counted by us",
        marker_color=_COLOURS["client"],
    )
    figure.add_bar(
        x=names,
        y=[server["prompt_tokens"], server["generation_tokens"]],
        name="counted by the server",
        marker_color=_COLOURS["server"],
    )
    figure.update_layout(barmode="group")
    return [figure]
