"""`python -m tests.bench.servers`: real servers under the load test; their own counts beside the client's.

Each server runs alone on 127.0.0.1 with a small real model, for chat and completions, streamed and not. Each run
has as many requests as fill the time at the rate of the run before it: none is cut off, and all counts must agree.
It installs the servers into a folder of its own (`--cache`). No test: nothing passes or fails here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.servers.kinds import SERVERS, Counted, model_folder
from tests.bench.tools import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.servers.kinds import Running

_SETTLE_S = 30
_LONGEST_RUN = "600s"
_PROMPT_TOKENS, _OUTPUT_TOKENS = 48, 24
_COLUMNS = (
    *("server", "endpoint", "streamed", "s", "outcomes", "output tokens", "deltas", "server's", "off by"),
    *("prompt tokens", "server's", "off by", "requests", "server's", "verdict"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.servers", description=__doc__)
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=list(SERVERS))
    parser.add_argument("--seconds", type=int, default=60, help="of each run, about")
    parser.add_argument("--users", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "headroom-servers")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    print(_line(_COLUMNS), _line(["---"] * len(_COLUMNS)), sep="\n", flush=True)
    for name in given.servers:
        SERVERS[name].install(given.cache)
        with SERVERS[name].running(given.cache, given.cache / f"{name}.log") as server:
            users = ["-u", str(given.users), "--tokenizer", str(model_folder(given.cache))]
            last = _load(server, [*users, "--max-requests", str(4 * given.users)])
            for endpoint, streamed in itertools.product(("chat", "completions"), (True, False)):
                options = [*users, "--endpoint", endpoint, "--stream" if streamed else "--no-stream"]
                count = max(4 * given.users, round(given.seconds * (last["throughput"]["requests_per_s"] or 0)))
                before = _settled(server)
                last = _load(server, [*options, "--max-requests", str(count)])
                cells = _cells(last, before, _settled(server))
                print(_line([name, endpoint, "yes" if streamed else "no", *cells]), flush=True)


def _line(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _cells(summary: dict[str, Any], before: Counted, after: Counted) -> list[str]:
    """Return the cells of one run, behind those that name it."""
    tokens, sent = summary["tokens"], summary["requests"]["total"]
    outcomes = [f"{name} {count}" for name, count in summary["requests"].items() if name != "total" and count]
    deltas = summary["ttft_ms"]["count"] + summary["chunk_gap_ms"]["count"]
    verdict = summary["verdict"]
    failures = [f"{failure['count']} x {failure['text']}" for failure in summary["failures"]]
    return [
        f"{summary['run']['duration_s']:.0f}",
        ", ".join(outcomes),
        *(str(tokens["output"]), str(deltas or "-")),
        *_beside(tokens["output"], before.output_tokens, after.output_tokens),
        str(tokens["prompt"]),
        *_beside(tokens["prompt"], before.prompt_tokens, after.prompt_tokens),
        *(str(sent), _beside(sent, before.requests, after.requests)[0]),
        "; ".join(["valid" if verdict["valid"] else "invalid", *verdict["reasons"], *failures]),
    ]


def _load(server: Running, options: list[str]) -> dict[str, Any]:
    """Run the load test and return its summary."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            *(sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest/locustfile.py"), "--headless"),
            *("--only-summary", "--host", server.url, "-r", "100", "-t", _LONGEST_RUN, "--report-dir", scratch),
            *("--prompt-tokens", str(_PROMPT_TOKENS), "--output-tokens", str(_OUTPUT_TOKENS)),
            *(*server.options, *options),
        ]
        done = subprocess.run(
            command, env=os.environ | server.environment, capture_output=True, text=True, check=False, cwd=ROOT
        )
        report = Path(scratch) / "summary.json"
        if not report.exists():
            raise RuntimeError(f"the load test left no summary:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        summary: dict[str, Any] = json.loads(report.read_text())
    return summary


def _settled(server: Running) -> Counted:
    """Return the server's totals once two readings agree: some servers count behind the answer."""
    deadline = time.monotonic() + _SETTLE_S
    last, now = None, server.counted()
    while now != last and time.monotonic() < deadline:
        time.sleep(1.5)
        last, now = now, server.counted()
    return now


def _beside(ours: int, before: float | None, after: float | None) -> tuple[str, str]:
    """Return the server's count and its difference from ours in percent; "-" where there is none."""
    if before is None or after is None:
        return "-", "-"
    theirs = after - before
    return f"{theirs:.0f}", f"{(theirs - ours) / ours:+.2%}" if ours else "-"


main()
