"""Shared parts of all report pages: templates, and plots that need no network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go  # type: ignore[import-untyped]  # no stubs exist
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]  # no stubs exist

if TYPE_CHECKING:
    from collections.abc import Iterable

_LAYOUT = {
    "template": "plotly_white",
    "height": 340,
    "margin": {"l": 60, "r": 50, "t": 44, "b": 48},
    "legend": {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0},
}
# Two buttons: more would cover the title on a phone or in print. Dragging zooms without a button.
_PLOT = {"responsive": True, "displaylogo": False, "modeBarButtons": [["toImage", "resetScale2d"]]}


def new_figure(title: str, x: str, y: str) -> go.Figure:
    """Return an empty plot with this title and these axis titles."""
    figure = go.Figure()
    figure.update_layout(title=title, xaxis_title=x, yaxis_title=y, **_LAYOUT)
    return figure


def right_axis(title: str, **more: Any) -> dict[str, Any]:
    """Return a second y axis, for `update_layout(yaxis2=...)`."""
    # "auto": by default its ticks are aligned with the left axis's, at uneven numbers.
    return {"overlaying": "y", "side": "right", "title": title, "showgrid": False, "tickmode": "auto", **more}


def render(package: str, template: str, charts: Iterable[go.Figure], **values: Any) -> str:
    """Return the HTML of `template` in a package's templates, or in this package's.

    The template gets `values`, `charts` as HTML, and plotly's JavaScript as `library`.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("loadtest.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["figure"] = _figure_text
    return environment.get_template(template).render(
        library=_safe(get_plotlyjs()),
        charts=[_safe(chart.to_html(full_html=False, include_plotlyjs=False, config=_PLOT)) for chart in charts],
        **values,
    )


def _safe(markup: str) -> Markup:
    """Mark plotly's output as safe: its texts are JSON, which plotly escapes for HTML."""
    return Markup(markup)  # noqa: S704  # see above


def _figure_text(value: float | None, digits: int = 1) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
