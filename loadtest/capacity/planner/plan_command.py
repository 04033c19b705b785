"""`capacity plan`: number of hosts like the measured one that a recorded load needs at its peak."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtest.capacity.answer import SloLimits
from loadtest.capacity.planner.capacity_plan import Box, make_plan
from loadtest.capacity.planner.fleet_simulation import ForecastLoad
from loadtest.capacity.planner.plan_page import headline, render_plan
from loadtest.capacity.simulation.engine_spec import EngineSpec
from loadtest.input_error import InputError
from loadtest.report.report_folder import write_page
from loadtest.workload.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Sequence


def plan(arguments: Sequence[str]) -> int:
    """Run the sub-command and return its exit code. Raises InputError."""
    parser = argparse.ArgumentParser(prog="capacity plan", description=__doc__)
    parser.add_argument("result", type=Path, metavar="RESULT", help="capacity.json, or a report's folder")
    parser.add_argument("--trace", type=Path, required=True, help="CSV: TIMESTAMP, ContextTokens, GeneratedTokens")
    parser.add_argument("--trace-speed", type=float, default=1.0, help="2: the same requests in half the time")
    parser.add_argument("--window", type=float, default=300.0, help="seconds in each of which the SLO must be kept")
    parser.add_argument("--report", type=Path, default=Path("plan.html"), help="default plan.html")
    given = parser.parse_args(arguments)
    for option, value in (("--trace-speed", given.trace_speed), ("--window", given.window)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(option, f"{value:g} is out of range", "give a number above 0")
    box = read_box(given.result)
    trace = Trace.read(given.trace)
    shapes = [trace.shape(number) for number in range(len(trace))]
    load = ForecastLoad(
        [time / given.trace_speed for time in trace.times],
        [prompt for prompt, _ in shapes],
        [output for _, output in shapes],
    )
    found = make_plan(box, load, given.window, lambda line: print(line, flush=True))
    write_page(given.report, render_plan(found, box, given.trace.name))
    print(headline(found))
    for note in found.notes:
        print(f"Note: {note}")
    print(f"Report: {given.report}")
    return 0


def read_box(path: Path) -> Box:
    """Read the measured host from a search's `capacity.json`. Raises InputError."""
    file = path / "capacity.json" if path.is_dir() else path
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("RESULT", f"cannot read {file}: {error}", "give the capacity.json of a search") from None
    try:
        return _box(result)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            "RESULT", f"{file} says too little to plan with ({error!r})", "search again with this version"
        ) from None


def _box(result: dict[str, Any]) -> Box:
    capacity, slo = result["capacity"], result["run"]["slo"]
    if not result["verdict"]["valid"] or capacity["bound"] != "edge":
        raise ValueError("the search must be valid and end at an edge")
    if capacity["output_tokens_mean"] is None:
        raise ValueError("its server must count the tokens (usage)")
    known = {field.name for field in fields(EngineSpec)}
    spec = EngineSpec(**{name: value for name, value in capacity["twin"]["spec"].items() if name in known})

    def seconds(name: str) -> float | None:
        return None if slo[name] is None else slo[name] / 1000

    return Box(
        twin=spec,
        limits=SloLimits(seconds("ttft_ms"), seconds("tpot_ms"), seconds("e2e_ms")),
        objective=slo["percentile"] / 100,
        prompt_tokens=capacity["prompt_tokens_mean"],
        output_tokens=capacity["output_tokens_mean"],
        **capacity["requests_per_second"],
    )
