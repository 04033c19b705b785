"""Result of one side, as passed between processes."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class SideResult:
    """Seconds of each repeat of the whole work; `how` describes the side's choices."""

    backend: str
    version: str
    how: str
    seconds: list[float]

    @property
    def median_s(self) -> float:
        """Median over the repeats."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median."""
        return (max(self.seconds) - min(self.seconds)) / self.median_s


def save(result: SideResult, path: Path) -> None:
    """Write it as JSON."""
    path.write_text(json.dumps(asdict(result)))


def load(path: Path) -> SideResult:
    """Read what `save` wrote."""
    return SideResult(**json.loads(path.read_text()))
