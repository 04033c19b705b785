"""`capacity compare A B ...`: compare results on the terminal and as an HTML page."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import UndefinedError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtest.capacity.report.capacity_page import render_comparison
from loadtest.capacity.report.regression import change, check_same, differences, read_result
from loadtest.input_error import InputError
from loadtest.report.report_folder import write_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def compare(arguments: Sequence[str]) -> int:
    """Run the sub-command and return its exit code. Raises InputError."""
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
    for name, result in results.items():
        _check_shown(name, result)
    write_page(given.report, render_comparison(results))
    _print(results)
    print(f"Report: {given.report}")
    return 0


def _check_shown(name: str, result: Mapping[str, Any]) -> None:
    """Raise InputError unless table and page can be rendered from a result."""
    try:
        _table({name: result})
        render_comparison({name: result})
        json.dumps(result, ensure_ascii=False).encode()  # lone surrogates can be neither written nor printed
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, UndefinedError) as error:
        problem = f"{name} says too little to compare ({type(error).__name__}: {error})"
        raise InputError("RESULT", problem, "search again with this version") from None


def _print(results: Mapping[str, Mapping[str, Any]]) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 140
    console.print(_table(results))
    (_, old), *others = results.items()
    for name, new in others:
        for key, before, after in differences(old["run"], new["run"]):
            print(f"{name}: {key}: {before} -> {after}")


def _table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    old = next(iter(results.values()))
    table = Table(title="Capacity, requests/s")
    for column in ("", "low", "mid", "high", "output tokens/s", "limited by", "change"):
        table.add_column(column, justify="right" if column else "left")
    for name, result in results.items():
        capacity, limit = result["capacity"], result["verdict"]["limit"]
        rates = [_number(capacity["requests_per_second"][bound], 2) for bound in ("low", "mid", "high")]
        tokens = _number(capacity["output_tokens_per_second"]["mid"], 0)
        moved = "" if result is old else change(old, result).drop_text()
        # Text: brackets in a name or a cause are no markup.
        table.add_row(*map(Text, (name, *rates, tokens, limit["cause"] if limit else "-", moved)))
    return table


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
