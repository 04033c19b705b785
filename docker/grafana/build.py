"""Builds the dashboards, docker/grafana/dashboards/*.json, with Grafana's own SDK.

python docker/grafana/build.py            # write the JSON
python docker/grafana/build.py --check    # exit 1 unless the folder is up to date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from boards import engine, hardware, load_test, overview
from grafana_foundation_sdk.cog.encoder import JSONEncoder

OUTPUT = Path(__file__).parent / "dashboards"
BOARDS = {
    "overview": overview.build,
    "engine": engine.build,
    "load-test": load_test.build,
    "hardware": hardware.build,
}


def build() -> dict[str, str]:
    """Return the text of every file, by its name."""
    return {
        f"{name}.json": JSONEncoder(sort_keys=True, indent=2).encode(board()) + "\n" for name, board in BOARDS.items()
    }


def problems(folder: Path, files: dict[str, str]) -> list[str]:
    """Problems of `folder`: files that differ, are missing, or do not belong there."""
    there = {path.name: path.read_text() for path in folder.iterdir()}
    stray = [f"{name} is built by nothing: delete it" for name in sorted(there.keys() - files.keys())]
    stale = [name for name in files if there.get(name) != files[name]]
    return stray + [f"{name} is not what is built: run docker/grafana/build.py and commit the result" for name in stale]


def main() -> int:
    """Write, or with --check compare, every dashboard."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 unless all is as built")
    parser.add_argument("--folder", type=Path, default=OUTPUT, help="default: the committed one")
    options = parser.parse_args()
    files = build()
    if options.check:
        found = problems(options.folder, files)
        print(*found, sep="\n", end="\n" if found else "")
        return 1 if found else 0
    for name, text in files.items():
        (options.folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
