"""The checkout that these programs belong to."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def import_from(*folders: str) -> None:
    """Let modules of these folders of the checkout be imported: those of the containers, or the load test's."""
    sys.path.extend(str(ROOT / folder) for folder in folders)
