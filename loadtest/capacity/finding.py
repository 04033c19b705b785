"""All that a search gathers, and the stages that its result rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.capacity.answer import SearchAnswer, SearchSettings
    from loadtest.capacity.stage_record import StageRecord, UsersRecord
    from loadtest.settings.run_options import RunOptions
    from loadtest.settings.run_plan import RunPlan

# Log rate around the capacity: stages within it show what limits the engine there.
_NEAR = 0.2
# Stages nearest to the capacity from which Little's law takes the time in the system.
_LITTLE_STAGES = 2


@dataclass(slots=True)
class SearchFinding:
    """All that a search has gathered so far; `answer` is set once it has ended."""

    options: RunOptions
    plan: RunPlan
    notes: tuple[str, ...]
    settings: SearchSettings
    budget_s: float
    cache_config: Mapping[str, str] = field(default_factory=dict)
    engine_version: str | None = None
    engines: int = 1
    engine_is_here: bool = False  # on the load generator's host, as far as known
    stages: list[StageRecord] = field(default_factory=list)
    users: list[UsersRecord] = field(default_factory=list)
    answer: SearchAnswer | None = None
    duration_s: float = 0.0
    stopped: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class StageSelection:
    """The stages that a result rests on."""

    counting: Sequence[StageRecord]  # neither void nor client-limited, and with requests
    lightest: StageRecord | None  # at the lowest rate
    saturated: Sequence[StageRecord]  # near the capacity, one with misses at least if there is any
    client_limited: StageRecord | None  # the first at which the load generator was the limit
    in_system: float | None  # requests in the system at the capacity, by Little's law


def select_stages(answer: SearchAnswer, records: Sequence[StageRecord]) -> StageSelection:
    """Select from the `records` of all stages those that the report explains."""
    counting = [
        record
        for record in records
        if not record.result.void and not record.result.client_limited and record.result.requests
    ]
    return StageSelection(
        counting=counting,
        lightest=min(counting, key=_rate, default=None),
        saturated=_saturated(counting, answer.mid or min(map(_rate, counting))) if counting else [],
        client_limited=next((record for record in records if record.result.client_limited), None),
        in_system=_littles_law(counting, answer.mid or answer.low),
    )


def _rate(record: StageRecord) -> float:
    return record.result.plan.rate


def _saturated(counting: Sequence[StageRecord], rate: float) -> Sequence[StageRecord]:
    """Return the stages near `rate`; if none of them missed, the next one above it too, else the last stage."""

    def distance(record: StageRecord) -> float:
        return abs(math.log(_rate(record) / rate))

    near = [record for record in counting if distance(record) <= _NEAR]
    if any(record.missed_share for record in near):
        return near
    beyond = [record for record in counting if _rate(record) >= rate and distance(record) > _NEAR]
    return [*near, *sorted(beyond, key=distance)[:1]] or counting[-1:]


def _littles_law(counting: Sequence[StageRecord], rate: float | None) -> float | None:
    """Return rate * mean time in the system (Little, 1961), from the stages nearest to `rate` requests/s."""
    if not rate:
        return None
    near = sorted(counting, key=lambda record: abs(math.log(_rate(record) / rate)))[:_LITTLE_STAGES]
    times = [request.e2e_s for record in near for request in record.result.requests if request.e2e_s is not None]
    return rate * sum(times) / len(times) if times else None
