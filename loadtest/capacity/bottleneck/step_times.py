"""What the engine's steps spend their time on: prompts or outputs, from a search's own samples."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.capacity.bottleneck.engine_series import EngineSample

# Spans between two samples; below so many, the fit is the luck of a few.
_FEWEST_SPANS = 20

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class StepLaw:
    """A step takes step_s + prompt_token_s * its prompt tokens + output_token_s * its output tokens; seconds."""

    step_s: float
    prompt_token_s: float
    output_token_s: float

    def shares(self, steps: float, prompt_tokens: float, output_tokens: float) -> Vector:
        """The shares of the steps' time that each part takes; they add up to 1."""
        parts = (self.step_s * steps, self.prompt_token_s * prompt_tokens, self.output_token_s * output_tokens)
        total = sum(parts) or 1.0
        return parts[0] / total, parts[1] / total, parts[2] / total


def fit_step_law(series: Sequence[Sequence[EngineSample]]) -> StepLaw | None:
    """Fit the law by least squares over the spans in which the engine never stood still; None for too few of them.

    Each of the `series` is of one engine in one stage: engines take their steps at the same time.
    """
    rows: list[tuple[Vector, float]] = []
    for samples in series:
        for first, last in pairwise(samples):
            steps = last.steps - first.steps
            if first.running > 0 and last.running > 0 and steps > 0:
                tokens = (last.prompt_tokens - first.prompt_tokens, last.output_tokens - first.output_tokens)
                rows.append(((steps, *tokens), last.at - first.at))
    if len(rows) < _FEWEST_SPANS:
        return None
    used = [0, 1, 2]
    while used:
        found = _least_squares(rows, used)
        if found is None:
            return None
        if min(found) >= 0:
            coefficients = dict(zip(used, found, strict=True))
            return StepLaw(*(coefficients.get(place, 0.0) for place in range(3)))
        used.pop(found.index(min(found)))  # no work takes less than no time
    return None


def _least_squares(rows: Sequence[tuple[Vector, float]], used: Sequence[int]) -> list[float] | None:
    """Solve the normal equations for the columns in `used`, scaled to 1; None where they say the same."""
    scales = [max(abs(values[place]) for values, _ in rows) or 1.0 for place in used]
    matrix = [
        [
            *(
                sum(values[one] * values[other] for values, _ in rows) / (scale * second)
                for other, second in zip(used, scales, strict=True)
            ),
            sum(values[one] * seconds for values, seconds in rows) / scale,
        ]
        for one, scale in zip(used, scales, strict=True)
    ]
    size = len(used)
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(matrix[row][column]))
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        if abs(matrix[column][column]) < 1e-9 * len(rows):
            return None
        for row in range(size):
            if row != column:
                factor = matrix[row][column] / matrix[column][column]
                matrix[row] = [mine - factor * theirs for mine, theirs in zip(matrix[row], matrix[column], strict=True)]
    return [matrix[row][size] / matrix[row][row] / scales[row] for row in range(size)]
