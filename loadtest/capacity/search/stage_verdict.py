"""Judge one stage: met, missed, undecided, or not yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtest.capacity.stage import Decision
from loadtest.capacity.statistics.shares import judge_share, rises

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.capacity.stage import Purpose, StagePlan, StageRequest
    from loadtest.capacity.statistics.shares import Share

# Required certainty in standard deviations. While bracketing, a wrong verdict costs one more stage. A running stage is
# judged repeatedly, so the verdict that ends it early (missed) requires more.
_Z_MET: dict[Purpose, float] = {"probe": 0.6, "bracket": 1.0, "bisect": 1.3, "edge": 1.96}
_Z_MISSED: dict[Purpose, float] = {"probe": 2.0, "bracket": 2.0, "bisect": 2.3, "edge": 1.96}
# Requests and share of misses after which more requests would not change the verdict. Higher near the capacity, where
# one excursion of the queue may fill a minute.
_HOPELESS: dict[Purpose, tuple[int, float]] = {
    "probe": (8, 0.7),
    "bracket": (15, 0.6),
    "bisect": (30, 0.6),
    "edge": (100, 0.9),
}


def is_unstable(requests: Sequence[StageRequest]) -> bool:
    """Return whether latencies grew throughout the window: the engine is overloaded and will miss in the end."""
    return any(
        rises([value for value in values if value is not None])
        for values in ([request.ttft_s for request in requests], [request.tpot_s for request in requests])
    )


def is_hopeless(purpose: Purpose, requests: Sequence[StageRequest]) -> bool:
    """Return whether so many requests missed that more of them would not change the verdict."""
    count, share = _HOPELESS[purpose]
    return len(requests) >= count and sum(not request.good for request in requests) >= share * len(requests)


def decide(plan: StagePlan, requests: Sequence[StageRequest], objective: float, *, ended: bool) -> Decision:
    """Judge a stage by its measured requests; `ended` excludes the verdict MORE."""
    purpose, count = plan.purpose, len(requests)
    complete = ended or count >= plan.max_requests
    if is_hopeless(purpose, requests):
        return Decision.MISSED
    # The estimate uses these stages: ending them by how they look would bias it.
    if not complete and (purpose == "edge" or count < plan.min_requests):
        return Decision.MORE
    good = [request.good for request in requests]
    if judge_share(good, _Z_MISSED[purpose]).high < objective:
        return Decision.MISSED
    if judge_share(good, _Z_MET[purpose]).low > objective:
        if not is_unstable(requests):
            return Decision.MET
        return Decision.MISSED if complete else Decision.MORE
    return Decision.UNDECIDED if complete else Decision.MORE


def interval(requests: Sequence[StageRequest], z: float) -> Share:
    """Return the share of good requests with its interval of `z` standard deviations."""
    return judge_share([request.good for request in requests], z)
