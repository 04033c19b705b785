"""`plan.html`: one file, without network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtest.report.html_page import new_figure, render

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go  # type: ignore[import-untyped]  # no stubs exist

    from loadtest.capacity.planner.capacity_plan import Box, CapacityPlan
    from loadtest.capacity.planner.fleet_simulation import ForecastWindow

_BLUE, _ORANGE, _GREEN, _RED = "#2a6fbb", "#d97b29", "#3a923a", "#c03d3e"
_SPEEDS = {
    "mid": ("as measured", _BLUE),
    "low": ("at the interval's lower end", _ORANGE),
    "high": ("at its upper end", _GREEN),
}


def headline(plan: CapacityPlan) -> str:
    """Return the plan in one line."""
    boxes = "1 box" if plan.boxes == 1 else f"{plan.boxes} boxes"
    span = "" if plan.fewest == plan.most else f" ({plan.fewest} to {plan.most} within the capacity's interval)"
    return f"{boxes}{span} for a peak of {plan.peak_rate:.2f} requests/s"


def render_plan(plan: CapacityPlan, box: Box, load_name: str) -> str:
    """Return the page."""
    return render(
        "loadtest.capacity.planner",
        "plan.html",
        [_arrivals(plan, box), _by_boxes(plan, box), _shares(plan, box), _waits(plan, box)],
        headline=headline(plan),
        plan=plan,
        box=box,
        load_name=load_name,
    )


def _figure(title: str, x: str, y: str) -> go.Figure:
    figure = new_figure(title, x, y)
    figure.update_yaxes(rangemode="tozero")
    return figure


def _minutes(windows: Sequence[ForecastWindow]) -> list[float]:
    return [window.start / 60 for window in windows]


def _arrivals(plan: CapacityPlan, box: Box) -> go.Figure:
    figure = _figure("Recorded load against what the boxes carry", "minutes", "requests/s")
    figure.add_bar(
        x=_minutes(plan.windows),
        y=[window.requests / plan.window_s for window in plan.windows],
        name="recorded",
        marker_color=_BLUE,
        offset=0,
        width=plan.window_s / 60,
    )
    for boxes, colour in ((plan.boxes, _GREEN), (plan.boxes - 1, _RED)):
        if boxes:
            figure.add_hline(
                y=boxes * box.mid,
                line_dash="dash",
                line_color=colour,
                annotation_text=f"{boxes} x {box.mid:.2f} requests/s",
            )
    return figure


def _by_boxes(plan: CapacityPlan, box: Box) -> go.Figure:
    figure = _figure("The worst window, by the number of boxes", "boxes", "good requests, %")
    for speed, (name, colour) in _SPEEDS.items():
        points = [(boxes, share) for tried, boxes, share in plan.tried if tried == speed]
        figure.add_scatter(
            x=[boxes for boxes, _ in points],
            y=[100 * share for _, share in points],
            mode="lines+markers",
            name=name,
            line={"color": colour},
        )
    figure.add_hline(y=100 * box.objective, line_dash="dash", line_color=_RED, annotation_text="SLO")
    figure.update_xaxes(tickformat="d")
    return figure


def _shares(plan: CapacityPlan, box: Box) -> go.Figure:
    figure = _figure("Good requests over time", "minutes", "good requests, %")
    for windows, name, colour in _runs(plan):
        figure.add_scatter(
            x=_minutes(windows), y=[100 * window.share for window in windows], name=name, line={"color": colour}
        )
    figure.add_hline(y=100 * box.objective, line_dash="dash", line_color=_RED, annotation_text="SLO")
    figure.update_yaxes(rangemode="normal")
    return figure


def _waits(plan: CapacityPlan, box: Box) -> go.Figure:
    figure = _figure("Time to first token over time, p95 of each window", "minutes", "ms")
    for windows, name, colour in _runs(plan):
        figure.add_scatter(
            x=_minutes(windows),
            y=[None if window.ttft_p95 is None else 1000 * window.ttft_p95 for window in windows],
            name=name,
            line={"color": colour},
        )
    if box.limits.ttft_s is not None:
        figure.add_hline(y=1000 * box.limits.ttft_s, line_dash="dash", line_color=_RED, annotation_text="SLO")
    return figure


def _runs(plan: CapacityPlan) -> list[tuple[Sequence[ForecastWindow], str, str]]:
    return [
        (plan.windows, f"{plan.boxes} boxes as measured", _BLUE),
        (plan.with_most, f"{plan.most} boxes at the interval's lower end", _ORANGE),
    ]
