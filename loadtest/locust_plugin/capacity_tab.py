"""The search in Locust's page: a tab with a row per stage, and `/capacity`, progress as JSON for the remote command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadtest.capacity.execution.capacity_run import CapacityRun

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtest.capacity.report.progress import SearchProgress, StageProgress
    from loadtest.single_run import Run

KEY = "capacity"
COLUMNS = {
    "stage": "Stage",
    "rate": "Requests/s",
    "requests": "Requests measured",
    "share": "Met the SLO",
    "interval": "95 % interval",
    "state": "State",
    "failures": "Failures",
    "capacity": "Capacity so far, requests/s",
}


def table(run: Run | None) -> list[dict[str, str | int]]:
    """Return the tab's rows, the newest stage first; none if the run is no search."""
    if not isinstance(run, CapacityRun):
        return []
    progress = run.progress
    rows = [_row(stage) for stage in reversed(progress.rows)]
    if rows:
        rows[0]["capacity"] = _capacity_so_far(progress)
    return rows


def _row(stage: StageProgress) -> dict[str, str | int]:
    measured = stage.share is not None
    return {
        "stage": f"{stage.number} {stage.purpose}",
        "rate": f"{stage.rate:.2f}" if stage.rate else "-",
        "requests": stage.requests,
        "share": f"{stage.share:.1%}" if measured else "-",
        "interval": f"{stage.share_low:.1%} to {stage.share_high:.1%}" if measured else "-",
        "state": stage.state,
        "failures": "; ".join(stage.failures) or "-",
        "capacity": "",
    }


def _capacity_so_far(progress: SearchProgress) -> str:
    low, mid, high = progress.interval
    if low is not None and high is not None and mid is not None:
        return f"{mid:.2f} ({low:.2f} to {high:.2f})"
    return f"at least {low:.2f}" if low else "-"


def status(run: Run | None, query: Mapping[str, str]) -> dict[str, Any]:
    """Return the search's state, its log lines from number `from` of `query` on and, once it has ended, its result."""
    if not isinstance(run, CapacityRun):
        return {"run_id": None, "running": False, "lines": [], "summary": None}
    first = query.get("from", "0")
    progress = run.progress
    return {
        "run_id": run.run_id,
        "running": progress.running,
        "lines": progress.lines[int(first) if first.isdecimal() else 0 :],
        "summary": progress.summary,
    }
