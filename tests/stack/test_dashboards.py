"""Every query of every dashboard and rule, on the real Prometheus after real traffic: none errors, none is empty."""

from __future__ import annotations

import math
import re
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.rig import dashboards
from tests.rig.running_stack import ROOT, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.traffic import Run

# The first test of each kind makes the traffic that the others look at.
pytestmark = pytest.mark.timeout(600)

STEP_S = 5
# Selectors that need not find anything, and why. Covered by made-up series in tests/rules.
NOTHING_FOUND = {
    r"^DCGM_": "no GPU",
    r'status="5xx"': "no server error",
    r'severity="critical"|severity!="info"': "no incident",
    r"^model_download_": "the model was there before Prometheus looked",
    r"^vllm_router_|job=\"router\"": "one engine needs no router",
    r"^model:capacity|^headroom_capacity": "no capacity was measured",
}


def rules() -> list[tuple[str, str, str]]:
    """Return kind, name and expression of every rule."""
    files = sorted((ROOT / "docker/prometheus/rules").glob("*.yaml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    kinds = ("alert", "record")
    return [
        (kind, rule[kind], rule["expr"])
        for group in groups
        for rule in group["rules"]
        for kind in kinds
        if kind in rule
    ]


SHOWN = {query.where: query.filled() for query in dashboards.queries() if query.kind != "variable"}
RECORDED = {name: expr for kind, name, expr in rules() if kind == "record"}
ALERTS = {name: expr for kind, name, expr in rules() if kind == "alert"}
VARIABLES = {query.where: query.label_values() for query in dashboards.queries() if query.kind == "variable"}


def may_find_nothing(text: str) -> bool:
    return any(re.search(pattern, text) for pattern in NOTHING_FOUND)


def selectors(tree: Any) -> Iterator[str]:
    """Yield all selectors in an expression that Prometheus has parsed."""
    if isinstance(tree, list):
        for branch in tree:
            yield from selectors(branch)
    elif isinstance(tree, dict):
        if tree.get("type") in {"vectorSelector", "matrixSelector"}:
            matchers = [matcher for matcher in tree["matchers"] if matcher["name"] != "__name__"]
            inner = ", ".join(f'{m["name"]}{m["type"]}"{m["value"]}"' for m in matchers)
            yield f"{tree['name']}{{{inner}}}"
        else:
            yield from selectors(list(tree.values()))


def numbers(run: Run, promql: str, start: float, end: float) -> list[float]:
    """Return all values of a range query that are numbers."""
    data = run.stack.prometheus("query_range", query=promql, start=start, end=end, step=STEP_S)
    values = [float(value) for series in data["result"] for _, value in series["values"]]
    return [value for value in values if not math.isnan(value)]


@pytest.fixture(scope="module")
def window(calm_run: Run, overload: Run) -> tuple[float, float]:
    """From the first run's start to the last one's end."""
    return min(calm_run.started, overload.started), max(calm_run.ended, overload.ended)


@pytest.mark.parametrize("where", SHOWN)
def test_dashboard_query_finds_numbers(calm_run: Run, window: tuple[float, float], where: str) -> None:
    found = selectors(calm_run.stack.prometheus("parse_query", query=SHOWN[where]))
    assert numbers(calm_run, SHOWN[where], *window) or any(may_find_nothing(selector) for selector in found)


@pytest.mark.parametrize("where", VARIABLES)
def test_variable_has_values(calm_run: Run, where: str) -> None:
    selector, label = VARIABLES[where]
    assert calm_run.stack.prometheus(f"label/{label}/values", **{"match[]": selector})


@pytest.mark.parametrize("name", RECORDED)
def test_recording_rule_has_recorded(calm_run: Run, window: tuple[float, float], name: str) -> None:
    found = list(selectors(calm_run.stack.prometheus("parse_query", query=RECORDED[name])))
    if not any(may_find_nothing(selector) for selector in found):
        assert numbers(calm_run, name, *window)
        assert numbers(calm_run, RECORDED[name], *window)


@pytest.mark.parametrize("name", ALERTS)
def test_alert_reads_existing_series(calm_run: Run, window: tuple[float, float], name: str) -> None:
    # Whether it fires is the business of tests/rules; a selector that finds nothing would never let it.
    start, end = window
    numbers(calm_run, ALERTS[name], start, end)
    for selector in selectors(calm_run.stack.prometheus("parse_query", query=ALERTS[name])):
        found = calm_run.stack.prometheus("series", **{"match[]": selector, "start": start, "end": end})
        assert found or may_find_nothing(selector), selector


def test_every_rule_evaluates_without_error(calm_run: Run) -> None:
    groups = calm_run.stack.prometheus("rules")["groups"]
    evaluated = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert RECORDED.keys() | ALERTS.keys() <= evaluated.keys()
    assert {name: rule["lastError"] for name, rule in evaluated.items() if rule["health"] != "ok"} == {}


def test_exceptions_are_still_needed(calm_run: Run, window: tuple[float, float]) -> None:
    expressions = "\n".join([*SHOWN.values(), *ALERTS.values()])
    for pattern, reason in NOTHING_FOUND.items():
        used = re.findall(pattern.removeprefix("^").replace("|^", "|"), expressions)
        assert used or "capacity" in reason, pattern
    start, end = window
    assert calm_run.stack.prometheus("series", **{"match[]": '{__name__=~"DCGM_.+"}', "start": start, "end": end}) == []


def panel(where: str) -> str:
    """Return the query of a panel on the dashboards, by its dashboard and title."""
    [expr] = [expr for name, expr in SHOWN.items() if name.startswith(where)]
    return expr


def scrapes(run: Run, job: str) -> list[float]:
    """Return Unix times of the scrapes of `job` that succeeded, from the last before the run to the first after it."""

    def times() -> list[float]:
        series = run.stack.query(f'up{{job="{job}"}}[{math.ceil(time.time() - run.started) + 60}s]')
        return [float(at) for one in series for at, up in one["values"] if up == "1"]

    wait_for("a scrape after the run", lambda: max(times(), default=0) > run.ended, timeout_s=60)
    all_times = times()
    first = max(at for at in all_times if at < run.started)
    last = min(at for at in all_times if at > run.ended)
    return [at for at in all_times if first <= at <= last]


def counted(run: Run, where: str) -> float:
    """Return what a panel's rate counts from the scrape before the run to the scrape after it.

    The window starts and ends on a scrape, so rate() extrapolates nothing, and a scrape that a busy machine misses
    within it costs nothing.
    """
    query = panel(where)
    times = scrapes(run, "vllm" if "vllm:" in query else "locust")
    window_ms = round((times[-1] - times[0]) * 1000) + 1
    [series] = run.stack.prometheus(
        "query", query=query.replace(f"[{dashboards.RATE_INTERVAL}]", f"[{window_ms}ms]"), time=times[-1]
    )["result"]
    return float(series["value"][1]) * window_ms / 1000


@pytest.mark.parametrize(
    ("where", "at_least", "at_most"),
    [
        ("overview: Output tokens (stat)", ("server", "generation_tokens"), ("server", "generation_tokens")),
        (
            *("load-test: Output tokens (timeseries): A", ("server", "generation_tokens")),
            ("server", "generation_tokens"),
        ),
        ("load-test: Output tokens (timeseries): B", ("tokens", "output"), ("tokens", "output")),
        ("load-test: Prompt tokens (timeseries): B", ("tokens", "prompt"), ("tokens", "prompt")),
        ("load-test: Requests (stat)", ("requests", "total"), ("requests", "total")),
        # What the end of the run cuts off has ended for the client, and for the engine only where it was faster.
        ("overview: Requests (stat)", ("requests", "ok"), ("requests", "total")),
    ],
)
def test_rates_add_up_to_the_summary(
    calm_run: Run, where: str, at_least: tuple[str, str], at_most: tuple[str, str]
) -> None:
    least, most = (calm_run.summary[section][name] for section, name in (at_least, at_most))
    assert 0.98 * least <= counted(calm_run, where) <= 1.02 * most


def test_mean_rates_match_the_summary(calm_run: Run) -> None:
    # Of what the end of the run cuts off, the engine has counted tokens and maybe the end; these rates leave it out.
    summary = calm_run.summary
    seconds, throughput = summary["run"]["duration_s"], summary["throughput"]
    tokens = counted(calm_run, "overview: Output tokens (stat)") / seconds
    requests = counted(calm_run, "overview: Requests (stat)") / seconds
    assert 0.98 * throughput["output_tokens_per_s"] <= tokens
    assert tokens <= 1.02 * summary["server"]["generation_tokens"] / seconds
    assert 0.98 * throughput["requests_per_s"] <= requests
    assert requests <= 1.02 * summary["requests"]["total"] / seconds


def at_the_end(run: Run, promql: str) -> list[dict[str, Any]]:
    """Return the result of a query just after the run, with rates over all of it."""
    end = run.ended + STEP_S
    wait_for("the run's last scrape", lambda: time.time() > end + STEP_S, timeout_s=60)
    text = promql.replace(dashboards.RATE_INTERVAL, f"{math.ceil(end - run.started + STEP_S)}s")
    result: list[dict[str, Any]] = run.stack.prometheus("query", query=text, time=end)["result"]
    return result


def one_value(run: Run, where: str) -> float:
    """Return the value that a panel would show for the whole run."""
    [series] = at_the_end(run, panel(where))
    return float(series["value"][1])


def test_mean_ttft_matches_the_summary(calm_run: Run) -> None:
    # Means have no bucket error.
    client, engine = calm_run.summary["ttft_ms"]["mean"], calm_run.summary["server"]["ttft_mean_ms"]
    assert one_value(calm_run, "load-test: Mean TTFT (timeseries): B") * 1000 == pytest.approx(client, rel=0.05)
    assert one_value(calm_run, "load-test: Mean TTFT (timeseries): A") * 1000 == pytest.approx(engine, rel=0.05)


@pytest.mark.parametrize(
    ("where", "metric", "histogram"),
    [
        ("load-test: TTFT p95, client (stat): A", "ttft_ms", "loadtest_time_to_first_token_seconds"),
        ("load-test: TPOT p95, client (stat): A", "tpot_ms", "loadtest_request_time_per_output_token_seconds"),
    ],
)
def test_quantile_lies_in_the_summarys_bucket(calm_run: Run, where: str, metric: str, histogram: str) -> None:
    shown, exact = one_value(calm_run, where), calm_run.summary[metric]["p95"] / 1000
    rates = f'sum by (le) (rate({histogram}_bucket{{job="locust"}}[{dashboards.RATE_INTERVAL}]))'
    cumulative = {float(one["metric"]["le"]): float(one["value"][1]) for one in at_the_end(calm_run, rates)}
    edges = sorted(cumulative)
    filled = [edge for below, edge in pairwise([0.0, *edges]) if cumulative[edge] > cumulative.get(below, 0)]
    # The same bucket, or the next that is not empty: the two definitions of a percentile may name neighbours.
    shown_in, exact_in = (sum(edge < value for edge in filled) for value in (shown, exact))
    assert abs(shown_in - exact_in) <= 1, (shown, exact, cumulative)
