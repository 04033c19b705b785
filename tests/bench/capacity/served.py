"""Run `scripts/capacity` against an engine served over HTTP in real time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.rig.fault_engine.process import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.simulated_engine.engine_kinds import Kind, Tokens


@dataclass(frozen=True, slots=True)
class Found:
    """Its result: requests/s, cause of the limit, setting to try."""

    bound: str
    low: float | None
    mid: float | None
    high: float | None
    cause: str
    setting: str
    seconds: float


def search_served(kind: Kind, url: str, folder: Path, budget_s: float, *options: str) -> Found:
    """Search with the kind's requests and objective, and write the report into `folder`."""
    started = time.monotonic()
    search = subprocess.run(
        [
            *(sys.executable, "scripts/capacity", "--host", url, "--endpoint", "chat", "--ignore-eos"),
            *("--prompt-tokens", lengths(kind.prompt), "--output-tokens", lengths(kind.output)),
            *(part for name, ms in limits_ms(kind).items() for part in (f"--slo-{name}-ms", f"{ms:g}")),
            *("--slo-percentile", f"{kind.objective:.0%}".removesuffix("%")),
            *("--budget", f"{budget_s:.0f}s", "--report-dir", str(folder), *options),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    (folder / "output.txt").write_text(search.stdout)
    result: dict[str, Any] = json.loads((folder / "capacity.json").read_text())
    capacity, limit = result["capacity"], result["verdict"]["limit"] or {}
    rate = capacity["requests_per_second"]
    return Found(
        capacity["bound"] if result["verdict"]["valid"] else "invalid",
        rate["low"],
        rate["mid"],
        rate["high"],
        limit.get("cause", "-"),
        (limit.get("next") or {}).get("setting", "-"),
        seconds,
    )


def lengths(tokens: Tokens) -> str:
    """Return the value of the option for these lengths."""
    return f"{tokens.mean}:{tokens.std:g}" if tokens.std else str(tokens.mean)


def limits_ms(kind: Kind) -> dict[str, float]:
    """Return the limits that are set, by name: ttft, tpot."""
    found = {"ttft": kind.limits.ttft_s, "tpot": kind.limits.tpot_s}
    return {name: limit * 1000 for name, limit in found.items() if limit is not None}
