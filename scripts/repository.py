"""The checkout of these commands, and imports from its other folders."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def import_from(*folders: str) -> None:
    """Make the modules of these folders importable: the containers' own, or the load test's."""
    sys.path.extend(str(ROOT / folder) for folder in folders)
