"""Find the number of concurrent users that meets the SLO, by closed loops."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtest.capacity.stage_record import UsersRecord
from loadtest.capacity.statistics.shares import normal_quantile, wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.capacity.answer import SearchSettings
    from loadtest.capacity.stage import StageRequest

# Most numbers of users to try; ratio of missed to met at which the search stops; factor of its first step.
_MOST_TRIES = 4
_NEAR = 1.15
_STEP = 1.3
# Fewest requests that have ended before a number of users is judged.
FEWEST_REQUESTS = 60
# Unmeasured first requests of each user.
WARMUP_REQUESTS = 1


def next_users(first: int, tried: Sequence[UsersRecord]) -> int | None:
    """Return the number of users to try next; None if enough is known, as after an undecided one."""
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
    """Return whether the closed loop meets the SLO (None: undecided), and the interval of its good share."""
    if not requests:
        return None, 0.0, 1.0
    low, high = wilson(good / requests, requests, normal_quantile(settings.confidence))
    met = True if low >= settings.objective else False if high < settings.objective else None
    return met, low, high


def make_record(  # noqa: PLR0913  # fields of a record
    users: int,
    requests: Sequence[StageRequest],
    settings: SearchSettings,
    *,
    rate: float | None,
    void: tuple[str, ...],
    duration_s: float,
    paused_share: float = 0.0,
) -> UsersRecord:
    """Judge a closed loop that has ended. If its interval contains the objective, the share itself decides.

    `paused_share` is of the users' time: beyond the misses that the objective allows, there were fewer users than said.
    """
    good = sum(request.good for request in requests)
    met, low, high = judge_users(good, len(requests), settings)
    if met is None and requests and len(requests) >= FEWEST_REQUESTS:
        met = good / len(requests) >= settings.objective
    if met and paused_share > 1 - settings.objective:
        met = False
    tokens = sum(request.output_tokens for request in requests) / len(requests) if requests else 0.0
    return UsersRecord(
        users=users,
        requests=len(requests),
        good=good,
        share_low=low,
        share_high=high,
        met=met,
        requests_per_s=rate,
        output_tokens_per_s=None if rate is None or any(request.uncounted for request in requests) else rate * tokens,
        void=void,
        duration_s=duration_s,
        paused_share=paused_share,
    )
