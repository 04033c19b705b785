"""Builders of small runs: options, records, plans, results."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from loadtest.client.request_record import Outcome, RequestRecord
from loadtest.results.run_results import RunResults
from loadtest.results.totals import RunTotals
from loadtest.settings.run_options import RunOptions, add_options, read_options
from loadtest.settings.run_plan import RunPlan


class _Parser(argparse.ArgumentParser):
    """The part of Locust's parser that the options need."""

    def add_argument(self, *names: Any, **settings: Any) -> Any:
        for extra in ("env_var", "include_in_web_ui"):
            settings.pop(extra, None)
        return super().add_argument(*names, **settings)


def option_values(*arguments: str) -> dict[str, Any]:
    """Every option's value after parsing, checked by nobody yet."""
    parser = _Parser()
    add_options(parser)
    return vars(parser.parse_args(arguments))


def options(*arguments: str, host: str = "http://127.0.0.1:8000") -> RunOptions:
    return read_options(option_values(*arguments), host)


def record(outcome: Outcome = Outcome.OK, **fields: Any) -> RequestRecord:
    made = RequestRecord(
        index=0,
        endpoint="chat",
        outcome=outcome,
        sent_at=1000.0,
        status=200,
        duration=0.5,
        ttft=0.1,
        tpot=0.02,
        e2e=0.5,
        gaps=[0.02] * 20,
        prompt_tokens=100,
        output_tokens=21,
        expected_prompt_tokens=100,
        response_bytes=1000,
        kernel_stamped=True,
        lags=[0.0001] * 22,
    )
    if outcome is not Outcome.OK:
        made = replace(made, prompt_tokens=0, output_tokens=0, tpot=None)
    return replace(made, **fields)


def plan(**fields: Any) -> RunPlan:
    return replace(RunPlan("run", 1, "engine", 2048, 1000.0, {"local": 0}), **fields)


def results(*records: RequestRecord, arguments: tuple[str, ...] = (), **report: Any) -> RunResults:
    """Return the results of one process that reported `records`."""
    run = RunResults(options(*arguments), plan())
    totals = RunTotals(run.options.slo)
    for each in records:
        totals.add(each)
    run.add_report(
        "local",
        {
            "measured": totals.to_wire(),
            "unmeasured": RunTotals(run.options.slo).to_wire(),
            "rows": [],
            "in_flight": 0,
            "ended": True,
            "cpu_s": 1.0,
            "wall_s": 10.0,
            **report,
        },
    )
    return run
