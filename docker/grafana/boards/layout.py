"""Layout of a dashboard: panels fill each line from the left and get their positions and ids here."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    Panel,
    RowPanel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from boards.panels import PROMETHEUS, Builder
from boards.promql import CLIENT, TARGET

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 24
# In the order of an investigation: state, cause, client's view, hardware.
TITLES = {
    "overview": "Overview",
    "engine": "Engine",
    "load-test": "Load test",
    "hardware": "GPU and host",
}


class Section(NamedTuple):
    """A heading and its panels, which must fill whole lines."""

    title: str
    panels: Sequence[Builder]


class Marker(AnnotationQuery):
    """An annotation from Prometheus. The SDK's type lacks the fields that Prometheus' own annotations have."""

    def __init__(  # noqa: PLR0913  # as many as a marker has fields
        self, name: str, color: str, expr: str, title: str, text: str, *, value_is_time: bool = False
    ) -> None:
        """Mark when `expr` is above 0; with `value_is_time` mark the time, in milliseconds, that its value is."""
        super().__init__(name=name, datasource=PROMETHEUS, icon_color=color, expr=expr, built_in=None)
        self._more: dict[str, object] = {
            "titleFormat": title,
            "textFormat": text,
            "step": "5s",
            "useValueForTime": value_is_time,
        }

    def to_json(self) -> dict[str, object]:
        """Return all fields."""
        return super().to_json() | self._more


LOAD_TESTS = Marker(
    "Load tests",
    "orange",
    f"loadtest_run_info{{{CLIENT}}} and on (instance) loadtest_users{{{CLIENT}}} > 0",
    "Load test {{run_id}}",
    "{{endpoint}}, {{prompt_tokens}} prompt and {{output_tokens}} output tokens, seed {{seed}}",
)
ENGINE_STARTS = Marker(
    "Engine starts",
    "purple",
    f"process_start_time_seconds{{{TARGET}}} * 1000",
    "Engine started",
    "{{instance}}",
    value_is_time=True,
)
CRITICAL_ALERTS = Marker(
    "Critical alerts",
    "red",
    'max by (alertname) (ALERTS{alertstate="firing", severity="critical"})',
    "{{alertname}}",
    "docs/runbook.md has what to do",
)


def dashboard(name: str, description: str, sections: Sequence[Section]) -> Dashboard:
    """Assemble the dashboard `name`, one of `TITLES`, with its variables, markers, and links to the others."""
    builder = (
        board.Dashboard(f"Headroom: {TITLES[name]}")
        .uid(f"headroom-{name}")
        .tags(["headroom"])
        .description(description)
        .readonly()
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(_variable("model", "Model", "label_values(vllm:num_requests_running, model_name)"))
        .with_variable(
            _variable("instance", "Engine", 'label_values(vllm:num_requests_running{model_name=~"$model"}, instance)')
        )
    )
    for other, title in TITLES.items():
        if other != name:
            builder.link(
                board.DashboardLink(title)
                .type(DashboardLinkType.LINK)
                .icon("dashboard")
                .tooltip(f"{title}, same time and same engines")
                .url(f"/d/headroom-{other}")
                .keep_time(True)
                .include_vars(True)
            )
    built = builder.build()
    built.annotations.list_val = [LOAD_TESTS, ENGINE_STARTS, CRITICAL_ALERTS]
    for shown in (*(built.links or ()), *built.annotations.list_val):
        # The SDK has one value alone, a menu; absent is above the panels, where they are seen.
        shown.placement = None
    built.panels = _place(sections)
    return built


def _variable(name: str, label: str, query: str) -> board.QueryVariable:
    return (
        board.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .include_all(True)
        .all_value(".*")
        .multi(True)
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _place(sections: Sequence[Section]) -> list[Panel | RowPanel]:
    placed: list[Panel | RowPanel] = []
    y = 0
    for section in sections:
        placed.append(RowPanel(title=section.title, id_val=len(placed) + 1, grid_pos=GridPos(h=1, w=WIDTH, x=0, y=y)))
        y += 1
        x = height = 0
        for builder in section.panels:
            panel = builder.build()
            at = panel.grid_pos
            assert at is not None, panel.title  # noqa: S101  # for the type checker: every kind of panel sets it
            if x + at.w > WIDTH:
                raise ValueError(f"{section.title}: {panel.title} does not fit its line")
            at.x, at.y = x, y
            panel.id_val = len(placed) + 1
            placed.append(panel)
            x, height = x + at.w, max(height, at.h)
            if x == WIDTH:
                x, y, height = 0, y + height, 0
        if x:
            raise ValueError(f"{section.title}: its last line is {x} wide, not {WIDTH}")
    return placed
