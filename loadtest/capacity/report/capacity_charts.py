"""Charts of one or several searches, from their `capacity.json`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from loadtest.report.html_page import new_figure, right_axis

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import plotly.graph_objects as go  # type: ignore[import-untyped]  # no stubs exist

_COLOURS = ("#2a6fbb", "#d97b29", "#3a923a", "#9372b2", "#845b53", "#d684bd", "#7a7a7a", "#b5a42e")
_DECISIONS = {"met": "#3a923a", "missed": "#c03d3e", "undecided": "#d97b29", "void": "#9a9a9a"}
_SLO_COLOUR = "#c03d3e"
_DASHES = {"p50": "dot", "p95": "solid", "p99": "dash"}


def curve_charts(results: Mapping[str, Mapping[str, Any]]) -> list[go.Figure]:
    """Return the charts over the rate, with the SLO's lines; `results` by display name."""
    return [
        _shares(results),
        _latencies(results, "ttft", "Time to first token from the due time"),
        _latencies(results, "tpot", "Time per output token"),
        _goodput(results),
    ]


def search_charts(summary: Mapping[str, Any]) -> list[go.Figure]:
    """Return the charts of one search: its path, and the engine at saturation."""
    return [_path(summary), *_saturation(summary), *_first_token(summary), *_users(summary)]


def _figure(title: str, x: str, y: str) -> go.Figure:
    figure = new_figure(title, x, y)
    figure.update_layout(showlegend=True)
    return figure


def _coloured(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[tuple[str, Mapping[str, Any]], str]]:
    return zip(results.items(), itertools.cycle(_COLOURS), strict=False)


def _counting(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the stages that count and have requests, sorted by rate."""
    stages = [stage for stage in summary["stages"] if not stage["void"] and stage["requests"]]
    return sorted(stages, key=lambda stage: stage["rate"])


def _band(figure: go.Figure, summary: Mapping[str, Any], colour: str, *, across: bool = False) -> None:
    """Shade the capacity's interval; draw a line for a floor."""
    rates = summary["capacity"]["requests_per_second"]
    line = figure.add_hline if across else figure.add_vline
    area = figure.add_hrect if across else figure.add_vrect
    if rates["high"] is not None:
        ends = {"y0": rates["low"], "y1": rates["high"]} if across else {"x0": rates["low"], "x1": rates["high"]}
        area(**ends, fillcolor=colour, opacity=0.15, line_width=0)
    middle = rates["mid"] or rates["low"]
    if middle:
        line(**{"y" if across else "x": middle}, line_color=colour, line_width=1)


def _shares(results: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    figure = _figure("Share of requests that met the SLO, with its interval", "requests per second", "%")
    for (name, summary), colour in _coloured(results):
        stages = _counting(summary)
        figure.add_scatter(
            x=[stage["rate"] for stage in stages],
            y=[stage["share"] * 100 for stage in stages],
            error_y={
                "array": [(stage["share_high"] - stage["share"]) * 100 for stage in stages],
                "arrayminus": [(stage["share"] - stage["share_low"]) * 100 for stage in stages],
                "thickness": 1,
            },
            mode="markers",
            name=name or "share",
            marker={"color": colour, "size": 7},
            hovertext=[f"stage {stage['number']}, {stage['requests']} requests" for stage in stages],
        )
        _band(figure, summary, colour)
        figure.add_hline(y=summary["run"]["slo"]["percentile"], line_dash="dash", line_color=_SLO_COLOUR)
    figure.update_yaxes(range=[0, 103])
    figure.update_xaxes(rangemode="tozero")
    return figure


def _latencies(results: Mapping[str, Mapping[str, Any]], name: str, title: str) -> go.Figure:
    figure = _figure(f"{title}, ok requests", "requests per second", "ms (log)")
    for (label, summary), colour in _coloured(results):
        stages = _counting(summary)
        for percentile, dash in _DASHES.items():
            points = [(stage["rate"], stage[f"{name}_ms"][percentile]) for stage in stages]
            points = [point for point in points if point[1] is not None]
            if points:
                figure.add_scatter(
                    x=[rate for rate, _ in points],
                    y=[value for _, value in points],
                    mode="lines+markers",
                    name=f"{label} {percentile}".strip(),
                    line={"color": colour, "dash": dash, "width": 1.5},
                    marker={"size": 5},
                )
        _band(figure, summary, colour)
    limit = next(iter(results.values()))["run"]["slo"][f"{name}_ms"]  # the same in all
    rates = [stage["rate"] for summary in results.values() for stage in _counting(summary)]
    if limit is not None and rates:
        # Data, not a shape: a shape would stretch a logarithmic axis.
        figure.add_scatter(
            x=[0, max(rates)],
            y=[limit, limit],
            mode="lines",
            name="SLO",
            line={"color": _SLO_COLOUR, "dash": "dash", "width": 1.5},
        )
    figure.update_yaxes(type="log")
    figure.update_xaxes(rangemode="tozero")
    return figure


def _goodput(results: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    figure = _figure("Goodput and throughput", "requests per second that are due", "requests per second")
    for (name, summary), colour in _coloured(results):
        stages = _counting(summary)
        rates = [stage["rate"] for stage in stages]
        figure.add_scatter(
            x=rates,
            y=[stage["goodput_requests_per_s"] for stage in stages],
            mode="lines+markers",
            name=f"{name} goodput".strip(),
            line={"color": colour},
        )
        figure.add_scatter(
            x=rates,
            y=[stage["output_tokens_per_s"] for stage in stages],
            mode="lines",
            name=f"{name} output tokens".strip(),
            line={"color": colour, "dash": "dot"},
            yaxis="y2",
        )
        _band(figure, summary, colour)
    figure.update_layout(yaxis2=right_axis("output tokens per second", rangemode="tozero"))
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(rangemode="tozero")
    return figure


def _path(summary: Mapping[str, Any]) -> go.Figure:
    figure = _figure("The search's path", "minutes into the search", "requests per second (log)")
    began = summary["run"]["started"]
    for decision, colour in _DECISIONS.items():
        stages = [
            stage for stage in summary["stages"] if (stage["decision"] if not stage["void"] else "void") == decision
        ]
        if not stages:
            continue
        minutes: list[float | None] = []
        rates: list[float | None] = []
        for stage in stages:
            start = (stage["started"] - began) / 60
            minutes += [start, start + stage["duration_s"] / 60, None]
            rates += [stage["rate"], stage["rate"], None]
        figure.add_scatter(x=minutes, y=rates, mode="lines", name=decision, line={"color": colour, "width": 6})
    _band(figure, summary, _COLOURS[0], across=True)
    figure.update_yaxes(type="log")
    return figure


def _saturation(summary: Mapping[str, Any]) -> list[go.Figure]:
    """Chart queue, batch and KV cache in the stage that missed most near the capacity, else in the fastest one."""
    stages = [stage for stage in _counting(summary) if stage["series"]]
    if not stages:
        return []
    middle = summary["capacity"]["requests_per_second"]["mid"]
    near = [stage for stage in stages if middle and 0.8 <= stage["rate"] / middle <= 1.25]
    stage = min(near, key=lambda each: each["share"]) if near else stages[-1]
    figure = _figure(
        f"Inside the engine at {stage['rate']:.2f} requests/s (stage {stage['number']})",
        "seconds into the stage",
        "requests",
    )
    seconds = [point[0] for point in stage["series"]]
    for place, name, colour in ((1, "running", _COLOURS[0]), (2, "waiting", _COLOURS[1])):
        figure.add_scatter(x=seconds, y=[point[place] for point in stage["series"]], name=name, line={"color": colour})
    figure.add_scatter(
        x=seconds,
        y=[point[3] * 100 for point in stage["series"]],
        name="KV cache in use",
        line={"color": _COLOURS[2], "dash": "dot"},
        yaxis="y2",
    )
    figure.update_layout(yaxis2=right_axis("%", range=[0, 103]))
    figure.update_yaxes(rangemode="tozero")
    return [figure]


def _first_token(summary: Mapping[str, Any]) -> list[go.Figure]:
    """Chart the parts of the mean time to first token, by rate."""
    stages = [stage for stage in _counting(summary) if stage["engine"].get("queue_s") is not None]
    if not stages:
        return []
    figure = _figure("Where the time to the first token passes, mean", "requests per second", "ms")
    rates = [f"{stage['rate']:.2f}" for stage in stages]
    parts: Sequence[tuple[str, list[float], str]] = (
        ("in the queue", [stage["engine"]["queue_s"] * 1000 for stage in stages], _COLOURS[1]),
        ("prefill", [(stage["engine"]["prefill_s"] or 0.0) * 1000 for stage in stages], _COLOURS[0]),
        (
            "outside the engine",
            [
                max(
                    0.0,
                    (stage["ttft_ms"]["mean"] or 0.0)
                    - (stage["engine"]["queue_s"] + (stage["engine"]["prefill_s"] or 0.0)) * 1000,
                )
                for stage in stages
            ],
            "#9a9a9a",
        ),
    )
    for name, values, colour in parts:
        figure.add_bar(x=rates, y=values, name=name, marker_color=colour)
    figure.update_layout(barmode="stack")
    figure.update_xaxes(type="category")
    return [figure]


def _users(summary: Mapping[str, Any]) -> list[go.Figure]:
    loops = [loop for loop in summary["users"] if loop["requests"] and not loop["void"]]
    if not loops:
        return []
    figure = _figure("Closed loop: share of requests that met the SLO", "users without think time", "%")
    figure.add_scatter(
        x=[loop["users"] for loop in loops],
        y=[loop["good"] / loop["requests"] * 100 for loop in loops],
        error_y={
            "array": [(loop["share_high"] - loop["good"] / loop["requests"]) * 100 for loop in loops],
            "arrayminus": [(loop["good"] / loop["requests"] - loop["share_low"]) * 100 for loop in loops],
            "thickness": 1,
        },
        mode="markers",
        name="share",
        marker={"color": _COLOURS[0], "size": 8},
    )
    figure.add_hline(y=summary["run"]["slo"]["percentile"], line_dash="dash", line_color=_SLO_COLOUR)
    in_system = summary["capacity"]["users"]["littles_law"]
    if in_system is not None:
        figure.add_vline(x=in_system, line_dash="dot", annotation_text="Little's law")
    figure.update_yaxes(range=[0, 103])
    figure.update_xaxes(rangemode="tozero")
    return [figure]
