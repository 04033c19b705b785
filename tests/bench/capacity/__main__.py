"""`python -m tests.bench.capacity calibrate|truth|verdicts|rivals`: see the modules of these names."""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from tests.bench.capacity import calibration, rivals, truth, verdicts
from tests.bench.capacity.engines import ENGINES
from tests.rig.simulated_engine.engine_kinds import KINDS

_Row = TypeVar("_Row", calibration.Run, verdicts.Verdict, rivals.RivalSearch)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.capacity", description=__doc__)
    parser.add_argument("what", choices=["calibrate", "truth", "verdicts", "rivals"])
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), help="default: all")
    parser.add_argument("--budget", type=float, help="seconds for a search; default 900 of virtual time, 300 of real")
    parser.add_argument("--out", type=Path, help="append each search to this file, a JSON object a line")
    simulated = parser.add_argument_group("calibrate, truth")
    simulated.add_argument("--seeds", type=int, default=20, help="searches of each engine")
    simulated.add_argument("--first-seed", type=int, default=0)
    simulated.add_argument("--jobs", type=int, default=2, help="processes")
    served = parser.add_argument_group("verdicts, rivals")
    served.add_argument("--tools", nargs="+", default=list(rivals.RIVALS), choices=list(rivals.RIVALS))
    served.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "headroom-bench", help="for the rivals")
    served.add_argument("--keep", type=Path, help="keep each search's own files in this folder")
    given = parser.parse_args()
    console = Console(width=170)
    if given.what == "truth":
        truth.write(given.jobs)
    elif given.what == "calibrate":
        seeds = range(given.first_seed, given.first_seed + given.seeds)
        searches = calibration.calibrate(given.engines or list(ENGINES), seeds, given.jobs, given.budget or 900.0)
        console.print(calibration.table(_written(searches, given.out)))
    elif given.what == "verdicts":
        found = (verdicts.search_verdict(name, given.budget or 300.0, given.keep) for name in given.engines or KINDS)
        console.print(verdicts.table(_written(found, given.out)))
    else:
        compared = (
            rivals.compare(rivals.RIVALS[tool], name, given.cache, given.budget or 300.0, given.keep)
            for name in given.engines or KINDS
            for tool in given.tools
        )
        console.print(rivals.table(_written(compared, given.out)))


def _written(rows: Iterable[_Row], out: Path | None) -> list[_Row]:
    kept = []
    for row in rows:
        kept.append(row)
        print(row, flush=True)
        if out is not None:
            with out.open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")
    return kept


main()
