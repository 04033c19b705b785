"""Fit how the time of the engine's steps depends on prompt and output tokens, from a search's samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.capacity.engine_sample import EngineSample

# Fewest intervals between two samples for a fit.
_FEWEST_INTERVALS = 20
# Smallest singular value, over the root of the rows, of columns that are not collinear; they are scaled to 1.
_COLLINEAR = 3e-5

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class StepTimes:
    """A step takes step_s + prompt_token_s * its prompt tokens + output_token_s * its output tokens; seconds."""

    step_s: float
    prompt_token_s: float
    output_token_s: float

    def shares(self, steps: float, prompt_tokens: float, output_tokens: float) -> Vector:
        """Return the shares of the steps' time by part: steps themselves, prompt tokens, output tokens."""
        parts = (self.step_s * steps, self.prompt_token_s * prompt_tokens, self.output_token_s * output_tokens)
        total = sum(parts) or 1.0
        return parts[0] / total, parts[1] / total, parts[2] / total


def fit_step_times(series: Sequence[Sequence[EngineSample]]) -> StepTimes | None:
    """Fit by least squares over the intervals in which the engine was busy; None for too few of them.

    Each of the `series` is of one engine in one stage: several engines take steps at the same time.
    """
    rows: list[tuple[Vector, float]] = []
    for samples in series:
        for first, last in pairwise(samples):
            steps = last.steps - first.steps
            if first.running > 0 and last.running > 0 and steps > 0:
                tokens = (last.prompt_tokens - first.prompt_tokens, last.output_tokens - first.output_tokens)
                rows.append(((steps, *tokens), last.at - first.at))
    if len(rows) < _FEWEST_INTERVALS:
        return None
    return _solve(rows)


def _solve(rows: Sequence[tuple[Vector, float]]) -> StepTimes | None:
    """Return the non-negative least squares solution (Lawson and Hanson, 1974); None if the columns are collinear."""
    import numpy as np  # noqa: PLC0415  # comes with scipy
    from scipy.optimize import nnls  # type: ignore[import-untyped]  # noqa: PLC0415  # 50 MB, not for workers

    amounts = np.array([row for row, _ in rows])
    scales = np.maximum(np.abs(amounts).max(axis=0), 1.0)
    scaled = amounts / scales
    if np.linalg.matrix_rank(scaled, tol=_COLLINEAR * math.sqrt(len(rows))) < len(scales):
        return None
    costs, _ = nnls(scaled, np.array([seconds for _, seconds in rows]))
    return StepTimes(*(costs / scales).tolist())
