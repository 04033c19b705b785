"""Table at the end of a headless run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

_QUANTITIES = {
    "ttft_ms": "TTFT",
    "ttfat_ms": "TTFT of answer",
    "ttft_from_due_ms": "TTFT from due",
    "chunk_gap_ms": "Chunk gap",
    "tpot_ms": "TPOT",
    "e2e_ms": "E2E",
    "e2e_from_due_ms": "E2E from due",
    "schedule_delay_ms": "Sent late by",
}
_COLUMNS = ("count", "mean", "p50", "p90", "p95", "p99", "max")


def print_summary(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the verdict, then the figures, on `console` (standard output if None)."""
    console = console or Console()
    if not console.is_terminal:
        console.width = 100
    console.print()
    for line in _verdict(summary):
        console.print(Text(line))
    console.print(_latencies(summary))
    for label, text in _lines(summary):
        console.print(Text(f"{label:<14}{text}"))


def verdict_text(summary: Mapping[str, Any]) -> str:
    """Return the verdict in one line."""
    verdict, slo = summary["verdict"], summary["run"]["slo"]
    if not verdict["valid"]:
        return "INVALID RUN: these numbers cannot be believed"
    if verdict["slo_met"] is None:
        return "Valid run, no SLO was set"
    limits = ", ".join(
        f"{name.removesuffix('_ms').upper()} {limit:g} ms"
        for name, limit in slo.items()
        if name != "percentile" and limit is not None
    )
    word = "met" if verdict["slo_met"] else "MISSED"
    share = verdict["slo_attainment"] * 100
    return f"Valid run, SLO {word}: {share:.2f} % of the requests within {limits} ({slo['percentile']:g} % asked for)"


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Return what else a reader must know of the requests."""
    late, unknown, pauses = summary["cut_off_late"], summary["tpot_unknown"], summary["pauses"]
    found = []
    if pauses["count"]:
        found.append(
            f"users paused {pauses['count']:,} times after failures ({pauses['retry_after']:,} as Retry-After asked), "
            f"{pauses['user_s']:.1f} s in all, in which they were no load"
        )
    if summary["uncounted"]:
        found.append(
            f"{summary['uncounted']:,} request(s) ended ok without token counts (usage) from the server: tokens per "
            "second are not known, nor the TPOT of these"
        )
    if late:
        found.append(
            f"{late:,} request(s) were cut off by the end of the run after their TTFT or E2E limit had passed: "
            "counted as missed"
        )
    if unknown:
        found.append(
            f"{unknown:,} request(s) ended ok without a TPOT, and miss a TPOT limit: they had more tokens than text "
            "(hidden reasoning), no token counts, one delta, or several choices"
        )
    return found


def failure_text(failure: Mapping[str, Any]) -> str:
    """Return one of the most frequent failures with its count."""
    return f"{failure['count']:,} x {failure['outcome']}: {failure['text']}"


def _verdict(summary: Mapping[str, Any]) -> list[str]:
    reasons = [f"  - {reason}" for reason in summary["verdict"]["reasons"]]
    return [verdict_text(summary), *reasons]


def _latencies(summary: Mapping[str, Any]) -> Table:
    title = f"Run {summary['run']['id']}, {summary['run']['model']['name']}: milliseconds of requests ok"
    table = Table(title=Text(title))  # plain text: a model's name may have brackets
    table.add_column("", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    scopes = {"": summary}
    if len(summary["endpoints"]) > 1:
        scopes.update({f" {endpoint}": part for endpoint, part in summary["endpoints"].items()})
    for key, title in _QUANTITIES.items():
        for scope, part in scopes.items():
            figures = part[key]
            if key == "ttfat_ms" and figures == part["ttft_ms"]:
                continue  # there was no reasoning
            if figures["count"] and (not scope or key in {"ttft_ms", "ttfat_ms", "tpot_ms", "e2e_ms"}):
                table.add_row(title + scope, *(_number(figures[column], column) for column in _COLUMNS))
    return table


def _number(value: float | None, column: str) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if column == "count" else f"{value:,.1f}"


def _lines(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    requests, throughput, client = summary["requests"], summary["throughput"], summary["client"]
    outcomes = [f"{name} {count:,}" for name, count in requests.items() if name != "total" and count]
    lines = [("Requests", f"{requests['total']:,} in {summary['run']['duration_s']:.1f} s: " + ", ".join(outcomes))]
    lines.extend(("Failures", failure_text(failure)) for failure in summary["failures"])
    lines.extend(("Note", remark) for remark in remarks(summary))
    if throughput["requests_per_s"] is not None:
        lines.append(
            (
                "Throughput",
                (
                    f"{throughput['requests_per_s']:.2f} requests/s, goodput {throughput['goodput_requests_per_s']:.2f}"
                    f" requests/s, {_tokens_per_s(throughput)}"
                ),
            )
        )
    per_token = client["cpu_us_per_token"]
    lag = client["lag_ms"]["p50"]
    lines.append(
        (
            "Client",
            f"{client['timestamps']} time stamps, {client['cpu_s']:.1f} s CPU"
            + (f", {per_token:.0f} us a token" if per_token is not None else "")
            + (f", read {lag:.2f} ms late at p50" if lag is not None else ""),
        )
    )
    lines.append(("Server", _server(summary["server"])))
    lines.extend(("Note", note) for note in summary["run"]["workload"]["notes"])
    return lines


def _tokens_per_s(throughput: Mapping[str, Any]) -> str:
    if throughput["output_tokens_per_s"] is None:
        return "tokens/s not known"
    return (
        f"{throughput['output_tokens_per_s']:,.0f} output tokens/s, "
        f"{throughput['total_tokens_per_s']:,.0f} tokens/s in all"
    )


def _server(server: Mapping[str, Any] | None) -> str:
    if server is None:
        return "has no vLLM counters at /metrics: nothing to hold these numbers against"
    ratio = server["prefix_cache_hit_ratio"]
    return (
        f"counted {server['generation_tokens']:,.0f} output and {server['prompt_tokens']:,.0f} prompt tokens, we"
        f" {server['client_generation_tokens']:,} and {server['client_prompt_tokens']:,}: "
        + ("they agree" if server["reconciled"] else "they do NOT agree")
        + ("" if ratio is None else f"; prefix cache hits {ratio:.1%}")
    )
