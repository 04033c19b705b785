"""Table of drill results, for a terminal and as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drills.scene import DrillResult

COLUMNS = ("drill", "verdict", "users notice", "alert", "fires", "served again", "lost", "users saw")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"


def _row(result: DrillResult) -> tuple[str, ...]:
    return (
        result.name,
        result.verdict,
        _seconds(result.noticed_s),
        result.alert or "-",
        _seconds(result.detected_s),
        _seconds(result.recovered_s),
        result.lost or "-",
        result.user_saw or "-",
    )


def table(results: Sequence[DrillResult]) -> str:
    """Format for a terminal: rows, then errors and notes. Times count from the break."""
    rows = [COLUMNS, *map(_row, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{result.name}: {result.verdict}: {result.error}" for result in results if result.error]
    lines += [f"{result.name}: {note}" for result in results for note in result.notes]
    passed = sum(result.verdict == "passed" for result in results)
    failed = sum(result.verdict == "FAILED" for result in results)
    return "\n".join([*lines, f"{passed} passed, {failed} failed, {len(results) - passed - failed} skipped"])


def markdown(results: Sequence[DrillResult]) -> str:
    """Format as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(_row(result))} |" for result in results]
    lines += ["", *(f"- {result.name}: {result.verdict}: {result.error}" for result in results if result.error)]
    lines += [f"- {result.name}: {note}" for result in results for note in result.notes]
    return "\n".join(lines).rstrip() + "\n"
