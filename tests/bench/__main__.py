"""`python -m tests.bench`: compare load generators on this machine; needs two cores, Docker for vLLM's, and minutes.

It installs the rivals into a folder of its own (`--cache`). It is no test: nothing passes or fails here.
"""

import argparse
import itertools
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.measure import GAP_MS, TTFT_MS, Measured, measure
from tests.bench.priority import favoured
from tests.bench.tools import TOOLS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS))
    parser.add_argument("--streams", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--runs", type=int, default=1, help="of each tool with each number of streams")
    parser.add_argument("--rounds", type=int, default=6, help="requests of each stream")
    parser.add_argument("--output-tokens", type=int, default=50)
    parser.add_argument("--favour", action="store_true", help="go before all other work on this machine (needs root)")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "headroom-bench")
    given = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        parser.error("needs two cores: one for the server, one for the tool")
    console = Console(width=170)
    rows = []
    favour: AbstractContextManager[list[str]] = favoured() if given.favour else nullcontext([])
    with favour as prefix:
        for name in given.tools:
            TOOLS[name].install(given.cache / name)
        for streams, _, name in itertools.product(given.streams, range(given.runs), given.tools):
            row = measure(
                TOOLS[name],
                given.cache / name,
                streams=streams,
                rounds=given.rounds,
                tokens=given.output_tokens,
                prefix=prefix,
            )
            rows.append(row)
            print(row, flush=True)
    console.print(_table(rows))


def _table(rows: list[Measured]) -> Table:
    table = Table(title=f"Said minus true, ms; server: TTFT {TTFT_MS} ms, a token every {GAP_MS} ms; one client core")
    for column in (
        *("tool", "streams", "TTFT p50", "TTFT p99", "gap p50", "gap p99", "true TTFT p50/p99", "true gap p99"),
        *("us/token", "tokens/s", "tokens/s a core", "says of itself"),
    ):
        table.add_column(column, justify="left" if column == "tool" else "right")
    for row in sorted(rows, key=lambda row: row.streams):
        table.add_row(
            row.tool,
            str(row.streams),
            f"{row.reported.ttft_p50 - row.truth.ttft_p50:+.2f}",
            f"{row.reported.ttft_p99 - row.truth.ttft_p99:+.2f}",
            f"{row.reported.gap_p50 - row.truth.gap_p50:+.2f}",
            f"{row.reported.gap_p99 - row.truth.gap_p99:+.2f}",
            f"{row.truth.ttft_p50:.1f} / {row.truth.ttft_p99:.1f}",
            f"{row.truth.gap_p99:.1f}",
            f"{row.cpu_us_per_token:.1f}",
            f"{row.tokens_per_s:,.0f}",
            f"{1e6 / row.cpu_us_per_token:,.0f}",
            row.reported.validity,
        )
    return table


main()
