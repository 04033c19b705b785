"""Concurrent users at the edge: by Little's law from the open loop, and measured in closed loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtest.capacity.stage_record import UsersRecord
from loadtest.capacity.statistics.shares import normal_quantile, wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.capacity.answer import SearchSettings
    from loadtest.capacity.stage import StageRequest

# Numbers of users that are tried, and the ratio between neighbours at which the answer is near enough.
_MOST_TRIES = 4
_NEAR = 1.15
_STEP = 1.3
# Requests that each number of users must have ended before it is judged.
FEWEST_REQUESTS = 60
# Requests of each user that are not measured.
WARMUP_REQUESTS = 1


def next_users(first: int, tried: Sequence[UsersRecord]) -> int | None:
    """Return the number of users to try next; None when enough is known. Undecided counts as at the edge: no more."""
    judged = [record for record in tried if not record.void]
    if not judged:
        return first if not tried else None
    if len(tried) >= _MOST_TRIES or judged[-1].met is None:
        return None
    met = max((record.users for record in judged if record.met), default=0)
    missed = min((record.users for record in judged if not record.met), default=0)
    if not missed:
        return max(met + 1, round(met * _STEP))
    if not met:
        lower = min(missed - 1, int(missed / _STEP))
        return lower or None
    return None if missed <= max(met * _NEAR, met + 1) else round(math.sqrt(met * missed))


def judge_users(good: int, requests: int, settings: SearchSettings) -> tuple[bool | None, float, float]:
    """Say whether so many users meet the SLO (None: undecided), and the interval of the share that does."""
    if not requests:
        return None, 0.0, 1.0
    low, high = wilson(good / requests, requests, normal_quantile(settings.confidence))
    met = True if low >= settings.objective else False if high < settings.objective else None
    return met, low, high


def make_record(  # noqa: PLR0913  # a record's own fields
    users: int,
    requests: Sequence[StageRequest],
    settings: SearchSettings,
    *,
    rate: float | None,
    void: tuple[str, ...],
    duration_s: float,
) -> UsersRecord:
    """Judge a closed loop that has ended. Where its interval holds the objective, the share itself decides."""
    good = sum(request.good for request in requests)
    met, low, high = judge_users(good, len(requests), settings)
    if met is None and requests and len(requests) >= FEWEST_REQUESTS:
        met = good / len(requests) >= settings.objective
    tokens = sum(request.output_tokens for request in requests) / len(requests) if requests else 0.0
    return UsersRecord(
        users=users,
        requests=len(requests),
        good=good,
        share_low=low,
        share_high=high,
        met=met,
        requests_per_s=rate,
        output_tokens_per_s=None if rate is None else rate * tokens,
        void=void,
        duration_s=duration_s,
    )
