"""Additions to Locust's web page: tabs with the load test's results, `/metrics`, and checks of the form."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from flask import Response, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from loadtest.client.request_record import Outcome
from loadtest.input_error import InputError
from loadtest.locust_plugin import capacity_tab, same_origin

if TYPE_CHECKING:
    from locust.web import WebUI

    from collections.abc import Callable, Mapping

    from prometheus_client import CollectorRegistry

    from loadtest.results.distribution import Distribution
    from loadtest.results.run_results import RunResults
    from loadtest.results.totals import Totals
    from loadtest.single_run import Run

_KEY = "llm"
_COLUMNS = {
    "endpoint": "Endpoint",
    "requests": "Requests ended",
    "outcomes": "Not ok",
    "rate": "Requests/s",
    "goodput": "Goodput requests/s",
    "ttft": "TTFT ms: p50 / p95 / p99",
    "chunk_gap": "Chunk gap ms: p50 / p95 / p99",
    "tpot": "TPOT ms: p50 / p95 / p99",
    "e2e": "E2E ms: p50 / p95 / p99",
    "output_rate": "Output tokens/s",
    "prompt_rate": "Prompt tokens/s",
    "lag": "Client lag ms: p50 / p95 / p99",
}


def install(  # noqa: PLR0913, PLR0917  # one caller: the coordinator connects the page to itself
    web_ui: WebUI,
    registry: CollectorRegistry,
    run: Callable[[], Run | None],
    check: Callable[[Mapping[str, Any], str], None],
    defaults: Mapping[str, Any],
    on_scrape: Callable[[], None],
) -> None:
    """Add the tab and the routes to `web_ui`.

    `run` returns the run to show. `check` is called with the form's values and host before a run starts, and raises
    InputError to refuse it. `defaults` are the form's values from this Locust's start. `on_scrape` is called when
    Prometheus reads the metrics.
    """
    app = web_ui.app
    assert app is not None  # noqa: S101  # for the type checker: Locust creates it before the init event
    columns = {_KEY: _COLUMNS, capacity_tab.KEY: capacity_tab.COLUMNS}
    web_ui.template_args["extended_tabs"] = [
        {"title": "LLM", "key": _KEY},
        {"title": "Capacity", "key": capacity_tab.KEY},
    ]
    web_ui.template_args["extended_tables"] = [
        {"key": key, "structure": [{"key": name, "title": title} for name, title in titles.items()]}
        for key, titles in columns.items()
    ]

    def metrics() -> Response:
        if request.headers.get("User-Agent", "").startswith("Prometheus"):
            on_scrape()
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    def refuse_bad_form() -> Response | None:
        if not (request.method == "POST" and request.path.endswith("/swarm")):
            return None
        try:
            check(_values(request.form), request.form.get("host", ""))
        except InputError as error:
            return jsonify({"success": False, "message": str(error), "host": request.form.get("host", "")})
        return None

    def add_rows(response: Response) -> Response:
        if request.path.endswith("/stats/requests") and response.is_json:
            report = json.loads(response.get_data())
            shown = run()
            report["extended_stats"] = [
                {"key": _KEY, "data": table(None if shown is None else shown.results)},
                {"key": capacity_tab.KEY, "data": capacity_tab.table(shown)},
            ]
            response.set_data(json.dumps(report))
        return response

    same_origin.install(app)
    app.add_url_rule("/metrics", "loadtest_metrics", metrics)
    app.add_url_rule("/capacity", "loadtest_capacity", lambda: jsonify(capacity_tab.status(run(), request.args)))
    app.add_url_rule("/capacity/defaults", "loadtest_defaults", lambda: jsonify(defaults))
    app.before_request(refuse_bad_form)
    app.after_request(add_rows)


def _values(form: Mapping[str, str]) -> dict[str, Any]:
    """Return the form's values as Locust will store them: tick boxes arrive as text."""
    return {key: {"true": True, "false": False}.get(value, value) for key, value in form.items()}


def table(results: RunResults | None) -> list[dict[str, str | int]]:
    """Return the tab's rows: one per endpoint and, if there are several, one for all."""
    if results is None:
        return []
    rows = [
        _row(endpoint, totals, results.rates.per_second(endpoint))
        for endpoint, totals in sorted(results.measured.endpoints.items())
    ]
    if len(rows) > 1:
        rows.append(_row("all", results.measured.combined(), results.rates.per_second()))
    return rows


def _row(endpoint: str, totals: Totals, rates: Mapping[str, float]) -> dict[str, str | int]:
    failures = {name: count for name, count in totals.outcomes.items() if name != Outcome.OK}
    return {
        "endpoint": endpoint,
        "requests": totals.outcomes.total(),
        "outcomes": ", ".join(f"{name} {count}" for name, count in sorted(failures.items())) or "-",
        "rate": f"{rates['requests']:.1f}",
        "goodput": f"{rates['good']:.1f}",
        **{name: _percentiles(totals.distributions[name]) for name in ("ttft", "chunk_gap", "tpot", "e2e", "lag")},
        "output_rate": _rate(rates["output_tokens"]),
        "prompt_rate": _rate(rates["prompt_tokens"]),
    }


def _rate(tokens_per_s: float) -> str:
    return "-" if math.isnan(tokens_per_s) else f"{tokens_per_s:.0f}"


def _percentiles(distribution: Distribution) -> str:
    summary = distribution.summary()
    if not summary.count:
        return "-"
    return " / ".join(
        "-" if value is None else f"{value * 1000:.1f}" for value in (summary.p50, summary.p95, summary.p99)
    )
