"""Kinds of panels: number, lines, heat map, table; each has a description and a text for no data."""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Protocol

from grafana_foundation_sdk.builders import common, gauge, heatmap, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    GraphDrawStyle,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardSpecialValueMapOptions,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    GridPos,
    Panel,
    SpecialValueMap,
    SpecialValueMatch,
    Threshold,
    ThresholdsMode,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

if TYPE_CHECKING:
    from boards.promql import Query

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
NO_TRAFFIC = "No traffic"
NO_LOAD_TEST = "No load test"
NO_GPU = "No GPU exporter: see compose.gpu.yaml"
NO_HOST = "No host metrics: docker compose --profile host up -d"
SLO = "SLO"


class Builder(Protocol):
    """Interface of the SDK's panel builders."""

    def build(self) -> Panel:
        """Return the panel."""
        ...


def thresholds(*steps: tuple[float | None, str]) -> board.ThresholdsConfig:
    """Colour from a value on; the first step has no value."""
    config = board.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE)
    return config.steps([Threshold(value=value, color=color) for value, color in steps])


PLAIN = thresholds((None, "text"))
MORE_IS_BAD = thresholds((None, "green"), (1, "red"))
FULL_IS_BAD = thresholds((None, "green"), (0.8, "orange"), (0.95, "red"))


def tile(
    title: str,
    unit: str,
    description: str,
    expr: str,
    *,
    limits: board.ThresholdsConfig = PLAIN,
    limit_query: str = "",
    nothing: str = NO_TRAFFIC,
    width: int = 3,
) -> stat.Panel:
    """One current number; shows no data rather than an old value.

    `limit_query` gives the threshold for red, so that it follows .env.
    """
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .mappings([_nothing(nothing)])
        .no_value(nothing)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(Dataquery().ref_id("A").expr(expr).legend_format(title).instant())
        .grid_pos(GridPos(h=4, w=width, x=0, y=0))
    )
    if not limit_query:
        return panel.thresholds(limits)
    panel.with_target(Dataquery().ref_id(SLO).expr(limit_query).legend_format(SLO).instant())
    mapping = {"fieldName": SLO, "handlerKey": "threshold1"}
    options = {"configRefId": SLO, "mappings": [mapping]}
    return panel.with_transformation(DataTransformerConfig(id_val="configFromData", options=options))


def dial(
    title: str, description: str, expr: str, *, limits: board.ThresholdsConfig, nothing: str, width: int = 6
) -> gauge.Panel:
    """A current share from 0 to 120 % on a dial."""
    return (
        gauge.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit("percentunit")
        .decimals(0)
        .min(0)
        .max(1.2)
        .mappings([_nothing(nothing)])
        .no_value(nothing)
        .thresholds(limits)
        .show_threshold_markers(True)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(Dataquery().ref_id("A").expr(expr).legend_format(title).instant())
        .grid_pos(GridPos(h=4, w=width, x=0, y=0))
    )


def graph(
    title: str,
    unit: str,
    description: str,
    *queries: Query,
    nothing: str = NO_TRAFFIC,
    width: int = 12,
    stacked: bool = False,
    most: float | None = None,
    limits: board.ThresholdsConfig | None = None,
) -> timeseries.Panel:
    """Lines over time from zero; lines named engine, client and SLO look the same on every dashboard."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .mappings([_nothing(nothing)])
        .no_value(nothing)
        .color_scheme(board.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .draw_style(GraphDrawStyle.LINE)
        .fill_opacity(40 if stacked else 8)
        .line_width(2)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["last", "max"])
        )
        .override_by_name(SLO, _line("red", "fixed", dashed=True))
        .override_by_regexp("/^engine/", _line("blue", "shades"))
        .override_by_regexp("/^client/", _line("orange", "shades"))
        .grid_pos(GridPos(h=8, w=width, x=0, y=0))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if most is not None:
        panel.max(most)
    if limits is not None:
        panel.thresholds(limits).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        )
    for letter, query in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend).range())
    return panel


def heat_map(title: str, description: str, buckets: str, *, width: int = 12) -> heatmap.Panel:
    """Number of requests by duration in seconds and time; `buckets` is a rate by `le`."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .no_value(NO_TRAFFIC)
        .unit("reqps")
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .show_legend()
        .with_target(
            Dataquery().ref_id("A").expr(buckets).legend_format("{{le}}").format(PromQueryFormat.HEATMAP).range()
        )
        .grid_pos(GridPos(h=8, w=width, x=0, y=0))
    )


def rows(
    title: str, unit: str, description: str, expr: str, columns: dict[str, str], *, nothing: str, width: int = 12
) -> table.Panel:
    """A table of an instant query's result: `columns` gives label -> heading, in order; Value is the value."""
    organize = {
        "indexByName": {label: number for number, label in enumerate(columns)},
        "renameByName": columns,
        "excludeByName": {"Time": True},
    }
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .no_value(nothing)
        .with_target(Dataquery().ref_id("A").expr(expr).format(PromQueryFormat.TABLE).instant())
        .with_transformation(DataTransformerConfig(id_val="organize", options=organize))
        .override_by_name(columns["Value"], [DynamicConfigValue(id_val="unit", value=unit)])
        .grid_pos(GridPos(h=8, w=width, x=0, y=0))
    )


def _nothing(text: str) -> SpecialValueMap:
    """Text for NaN, the quantile of no observations."""
    return SpecialValueMap(
        options=DashboardSpecialValueMapOptions(
            match=SpecialValueMatch.NULL_AND_NAN, result=ValueMappingResult(text=text)
        )
    )


def _line(color: str, mode: str, *, dashed: bool = False) -> list[DynamicConfigValue]:
    look: dict[str, Any] = {"color": {"mode": mode, "fixedColor": color}}
    if dashed:
        look |= {"custom.lineStyle": {"fill": "dash", "dash": [10, 10]}, "custom.fillOpacity": 0}
    return [DynamicConfigValue(id_val=name, value=value) for name, value in look.items()]
