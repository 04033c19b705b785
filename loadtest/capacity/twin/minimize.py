"""Nelder and Mead's simplex search (1965), for a few parameters and a function with no derivatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def minimize(
    function: Callable[[Sequence[float]], float], start: Sequence[float], *, step: float, evaluations: int
) -> tuple[list[float], float]:
    """Return the best point found with about that many evaluations, and its value."""
    count = len(start)
    points = [list(start)]
    for number in range(count):
        point = list(start)
        point[number] += step
        points.append(point)
    simplex = sorted((function(point), point) for point in points)
    used = count + 1
    while used < evaluations:
        worst_value, worst = simplex[-1]
        centre = [sum(point[i] for _, point in simplex[:-1]) / count for i in range(count)]

        def along(factor: float, worst: list[float] = worst, centre: list[float] = centre) -> tuple[float, list[float]]:
            point = [c + factor * (w - c) for c, w in zip(centre, worst, strict=True)]
            return function(point), point

        tried = along(-1.0)
        used += 1
        if tried[0] < simplex[0][0]:
            further = along(-2.0)
            used += 1
            tried = min(tried, further)
        elif tried[0] >= simplex[-2][0]:
            tried = along(-0.5 if tried[0] < worst_value else 0.5)
            used += 1
            if tried[0] >= min(worst_value, simplex[-1][0]):
                best = simplex[0][1]
                simplex = [
                    simplex[0],
                    *(
                        (function(moved), moved)
                        for moved in (
                            [(b + p) / 2 for b, p in zip(best, point, strict=True)] for _, point in simplex[1:]
                        )
                    ),
                ]
                simplex.sort()
                used += count
                continue
        simplex[-1] = tried
        simplex.sort()
    value, point = simplex[0]
    return point, value
