"""`capacity compare A B ...`: results beside each other, on the terminal and as a page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from loadtest.capacity.gate import change, check_same, differences, read_result
from loadtest.capacity.report.page import render_comparison

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def compare(arguments: Sequence[str]) -> int:
    """Run the sub-command; returns its exit code. Raises InputError."""
    parser = argparse.ArgumentParser(prog="capacity compare", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT", help="capacity.json, or a report's folder")
    parser.add_argument("--report", type=Path, default=Path("comparison.html"), help="default comparison.html")
    given = parser.parse_args(arguments)
    if len(given.results) < 2:
        parser.error("give two results or more")
    results = {str(path): read_result(path, "RESULT") for path in given.results}
    old, *others = results.values()
    for new in others:
        check_same(old, new, "RESULT")
    _print(results)
    partial = given.report.with_name(f"{given.report.name}.partial")
    partial.write_text(render_comparison(results), encoding="utf-8")
    partial.replace(given.report)
    print(f"Report: {given.report}")
    return 0


def _print(results: Mapping[str, Mapping[str, Any]]) -> None:
    (_, old), *others = results.items()
    table = Table(title="Capacity, requests/s")
    for column in ("", "low", "mid", "high", "output tokens/s", "limited by", "change"):
        table.add_column(column, justify="right" if column else "left")
    for name, result in results.items():
        capacity, limit = result["capacity"], result["verdict"]["limit"]
        rates = [_number(capacity["requests_per_second"][bound], 2) for bound in ("low", "mid", "high")]
        tokens = _number(capacity["output_tokens_per_second"]["mid"], 0)
        moved = "" if result is old else change(old, result).drop_text()
        table.add_row(name, *rates, tokens, limit["cause"] if limit else "-", moved)
    console = Console()
    if not console.is_terminal:
        console.width = 140
    console.print(table)
    for name, new in others:
        for key, before, after in differences(old["run"], new["run"]):
            print(f"{name}: {key}: {before} -> {after}")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
