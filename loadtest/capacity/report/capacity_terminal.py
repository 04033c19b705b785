"""Print the result of a search on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtest.report.run_terminal import failure_text

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENDED = {
    "interval": "the interval is as narrow as asked for",
    "budget": "the time was up",
    "max_rate": "the highest rate that may be tried",
    "client": "the load generator cannot send more",
    "idle_engine": "not even requests that come alone meet it",
    "failed": "nearly every request failed",
    "void": "stage after stage did not count",
    "stopped": "it was stopped",
}


def headline(summary: Mapping[str, Any]) -> str:
    """Return the result in one line."""
    capacity = summary["capacity"]
    if not summary["verdict"]["valid"]:
        return "NO VALID CAPACITY: " + "; ".join(summary["verdict"]["reasons"])
    rates = capacity["requests_per_second"]
    if capacity["bound"] == "never_met":
        return f"Never met: {_why_never(summary)}"
    if capacity["bound"] == "floor":
        return f"Capacity: at least {rates['low']:.2f} requests/s ({_ENDED[capacity['ended']]})"
    return (
        f"Capacity: {rates['mid']:.2f} requests/s ({rates['low']:.2f} to {rates['high']:.2f}, "
        f"{capacity['confidence']:.0%} interval; {_ENDED[capacity['ended']]})"
    )


def _why_never(summary: Mapping[str, Any]) -> str:
    limit = summary["verdict"]["limit"]
    if limit is None or limit["cause"] != "requests_failed":
        return "even the lowest rate misses the SLO"
    counting = [stage for stage in summary["stages"] if stage["requests"] and not stage["void"]]
    lowest = min(counting, key=lambda stage: stage["rate"])
    failed = lowest["misses"]["failed"] + lowest["misses"]["rejected"]
    return f"at {lowest['rate']:.2f} requests/s {failed} of {lowest['requests']} requests failed"


def cause_text(cause: str) -> str:
    """Return a cause as text."""
    return "cause not known" if cause == "unknown" else cause


def slo_text(slo: Mapping[str, float | None]) -> str:
    """Return the SLO as text."""
    limits = [
        f"{name.removesuffix('_ms').upper()} {limit:g} ms"
        for name, limit in slo.items()
        if name != "percentile" and limit is not None
    ]
    return f"{slo['percentile']:g} % of all due requests within {', '.join(limits)}"


def workload_text(run: Mapping[str, Any]) -> str:
    """Return the workload as text."""
    workload = run["workload"]
    if workload["dataset"]:
        return f"{workload['endpoint']}, prompts of {workload['dataset']}"
    prompt, output = workload["prompt_tokens"] or "512", workload["output_tokens"] or "128"
    return f"{workload['endpoint']}, {prompt} prompt and {output} output tokens"


def print_capacity(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the result, its stages and the bottleneck."""
    console = console or Console()
    if not console.is_terminal:
        console.width = _WIDE
    run = summary["run"]
    console.print()
    console.print(Text(headline(summary)))
    console.print(Text(f"{run['model']['name']}: {workload_text(run)}; {slo_text(run['slo'])}"))
    console.print(_stages(summary, console.width))
    for label, text in _lines(summary):
        console.print(Text(f"{label:<14}{text}"), soft_wrap=True)


# Width of the table with all columns, and the columns left out of a narrower one, which would cut figures off.
_WIDE = 112
_WIDE_ONLY = {"interval", "TTFT p50", "TPOT p50"}


def _stages(summary: Mapping[str, Any], width: int) -> Table:
    title = "Stages: Poisson arrivals; shares of all due requests; milliseconds of those that ended ok"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, stage in enumerate(summary["stages"]):
        row = {name: text for name, text in _row(stage).items() if width >= _WIDE or name not in _WIDE_ONLY}
        for name in row if number == 0 else ():
            table.add_column(name, justify="left" if name in {"stage", "verdict"} else "right", no_wrap=True)
        table.add_row(*row.values())
    return table


def _row(stage: Mapping[str, Any]) -> dict[str, str]:
    share = stage["share"]
    latencies = {
        f"{name.upper()} {percentile}": _number(stage[f"{name}_ms"][percentile])
        for name in ("ttft", "tpot")
        for percentile in ("p50", "p95")
    }
    return {
        "stage": f"{stage['number']} {stage['purpose']}",
        "requests/s": f"{stage['rate']:.2f}",
        "requests": f"{stage['requests']:,}",
        "good": "-" if share is None else f"{share:.1%}",
        "interval": "-" if share is None else f"{stage['share_low']:.1%} to {stage['share_high']:.1%}",
        **latencies,
        "verdict": "void" if stage["void"] else stage["decision"],
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _lines(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    capacity, verdict = summary["capacity"], summary["verdict"]
    lines = [("Void", f"stage {stage['number']}: {why}") for stage in summary["stages"] for why in stage["void"]]
    if not verdict["limit"] or verdict["limit"]["cause"] != "requests_failed":
        lines.extend(("Failures", failure_text(failure)) for failure in summary["failures"])
    tokens = capacity["output_tokens_per_second"]
    if tokens["low"]:
        span = f"{tokens['low']:,.0f}" + (f" to {tokens['high']:,.0f}" if tokens["high"] else " or more")
        lines.append(("Tokens", f"{span} output tokens/s"))
    lines.append(("Users", users_text(capacity["users"])))
    if verdict["limit"]:
        lines.append(("Limited by", cause_text(verdict["limit"]["cause"])))
        lines.extend(("", line) for line in verdict["limit"]["evidence"])
        advice = verdict["limit"]["next"]
        if advice:
            lines.append(("Try next", f"{advice['setting']}: {advice['reason']}"))
    if summary["overload"]:
        lines.append(("Overload", f"{summary['overload']['setting']}: {summary['overload']['reason']}"))
    lines.extend(("Note", note) for note in summary["run"]["workload"]["notes"])
    return lines


def users_text(users: Mapping[str, Any]) -> str:
    """Return the concurrent users at the capacity as text."""
    parts = []
    if users["littles_law"] is not None:
        parts.append(f"{users['littles_law']:.1f} requests in the system at the edge (Little's law)")
    loop = users["closed_loop"]
    if loop is not None:
        met = (
            f"{loop['met']} users without think time meet it ({loop['requests_per_second']:.2f} requests/s)"
            if loop["met"]
            else "no number of users tried meets it"
        )
        parts.append(f"closed loop: {met}" + (f", {loop['missed']} do not" if loop["missed"] else ""))
    if users["theoretical_concurrency"] is not None:
        parts.append(f"the KV cache alone would hold {users['theoretical_concurrency']:.0f}")
    return "; ".join(parts) or "not known"
