"""`python -m tests.bench.faults`: load generators against a server whose answers are faulty; who counts them as good.

Each tool sends a few requests to a fault of `tests.rig.fault_engine` at a time. Prints the requests that a tool calls
successful, of all that it sent. No pass or fail.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tests.bench.tools import TOOLS, Work
from tests.rig.fault_engine.process import running_engine

if TYPE_CHECKING:
    from tests.bench.tools import Tool

FAULTS = {
    "healthy": "nothing",
    "in-band-error": "an error event after three tokens, HTTP 200",
    "truncated": "the body ends after three tokens",
    "cut": "the connection closes after three tokens",
    "reset": "the connection is reset after three tokens",
    "aborted": "finish_reason abort after three tokens",
    "no-finish-reason": "[DONE], no finish_reason",
    "no-done": "finish_reason, no [DONE]",
    "error-as-ok": "one JSON document with an error, HTTP 200",
    "http-503": "HTTP 503",
}
_REQUESTS, _STREAMS, _TOKENS = 16, 4, 8
_ROLE_MS, _TTFT_MS = 5, 50


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.faults", description=__doc__)
    parser.add_argument("--tools", nargs="+", default=["headroom", "vllm-rs"], choices=list(TOOLS))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "headroom-bench")
    given = parser.parse_args()
    table = Table("the server's fault", *given.tools, title=f"Counted as success, of {_REQUESTS}; last line: TTFT, ms")
    for name in given.tools:
        TOOLS[name].install(given.cache / name)
    for fault, meaning in FAULTS.items():
        cells = [_successes(_run(TOOLS[name], given.cache / name, f"--fault={fault}")) for name in given.tools]
        table.add_row(f"{fault}: {meaning}", *cells)
    cells = []
    for name in given.tools:
        result = _run(TOOLS[name], given.cache / name, f"--role-ms={_ROLE_MS}")
        cells.append("-" if result is None else f"{result['ttft']:.1f}")
    table.add_row(f"a role chunk after {_ROLE_MS} ms, the first token after {_TTFT_MS} ms", *cells)
    Console(width=150).print(table)


def _successes(result: dict[str, Any] | None) -> str:
    return "no result" if result is None else str(result["ok"])


def _run(tool: Tool, folder: Path, setting: str) -> dict[str, Any] | None:
    """Run a tool; return its successes and its median TTFT in milliseconds, None if it leaves no results."""
    engine = running_engine(f"--ttft-ms={_TTFT_MS}", "--gap-ms=5", setting)
    with tempfile.TemporaryDirectory() as scratch, engine as url:
        out = Path(scratch)
        out.chmod(0o777)  # for the user of a container
        with tool.ready(folder, out), (out / "log").open("w") as log:
            command = tool.command(Work(url, _STREAMS, _REQUESTS, 16, _TOKENS), folder, out)
            subprocess.run(command, stdout=log, stderr=log, check=False, timeout=120)
        try:
            return _read(tool.name, out)
        except (OSError, KeyError, IndexError, TypeError):
            return None


def _read(name: str, out: Path) -> dict[str, Any]:
    if name == "headroom":
        summary = json.loads((out / "summary.json").read_text())
        return {"ok": summary["requests"].get("ok", 0), "ttft": summary["ttft_ms"]["p50"] or 0.0}
    if name.startswith("vllm"):
        result = json.loads((out / "result.json").read_text())
        return {"ok": result["completed"], "ttft": result.get("p50_ttft_ms", 0.0)}
    if name == "guidellm":
        metrics = json.loads((out / "result.json").read_text())["benchmarks"][0]["metrics"]
        ttft = metrics["time_to_first_token_ms"]["successful"]["percentiles"]["p50"]
        return {"ok": metrics["request_totals"]["successful"], "ttft": ttft}
    result = json.loads((out / "profile_export_aiperf.json").read_text())
    return {"ok": int(result["request_count"]["avg"]), "ttft": result["time_to_first_token"]["p50"]}


if __name__ == "__main__":
    main()
