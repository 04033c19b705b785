"""Check that searches over HTTP, in real time, diagnose the cause that limits each engine.

python -m tests.bench.capacity verdicts     # 2 to 5 minutes an engine; light on the CPU
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.table import Table

from tests.bench.capacity.served import Found, search_served
from tests.bench.capacity.truth import served
from tests.rig.fault_engine.process import running_engine
from tests.rig.simulated_engine.engine_kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Verdict:
    """One search. `expected` is the engine's known cause."""

    engine: str
    expected: str
    found: Found


def search_verdict(name: str, budget_s: float, keep: Path | None = None) -> Verdict:
    """Serve the engine and search it; `keep` is a folder for the report."""
    kind = KINDS[name]
    with (
        TemporaryDirectory() as scratch,
        running_engine("--kind", name, module="tests.rig.simulated_engine") as url,
    ):
        folder = Path(scratch) if keep is None else keep / name
        folder.mkdir(parents=True, exist_ok=True)
        return Verdict(name, kind.cause, search_served(kind, url, folder, budget_s))


def table(verdicts: Sequence[Verdict]) -> Table:
    """Return a table with a row per engine."""
    shown = Table(title="Capacity and verdict over HTTP, in real time")
    for column in ("engine", "truth", "found", "interval", "verdict", "expected", "setting to try", "seconds"):
        shown.add_column(column, justify="right" if column in {"truth", "found", "interval", "seconds"} else "left")
    for one in verdicts:
        found = one.found
        shown.add_row(
            one.engine,
            f"{served(one.engine).rate:.2f}",
            found.bound if found.mid is None else f"{found.mid:.2f}",
            " to ".join("-" if end is None else f"{end:.2f}" for end in (found.low, found.high)),
            found.cause,
            "the same" if found.cause == one.expected else one.expected,
            found.setting,
            f"{found.seconds:.0f}",
        )
    return shown
