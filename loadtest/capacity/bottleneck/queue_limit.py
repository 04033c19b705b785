"""Limit on queued requests at which an overloaded engine keeps its goodput."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.capacity.stage_record import UsersRecord


def queue_limit(users: Sequence[UsersRecord], in_system: float | None) -> dict[str, Any] | None:
    """Return the setting to try and the reason; None where nothing is known.

    `in_system` is the number of requests in the system at the capacity, by Little's law.

    MAX_CONCURRENT_REQUESTS in .env is vLLM's --max-num-queued-reqs, which bounds all requests that have not ended,
    running or waiting (vLLM 0.32, AsyncLLM.check_admission). An overloaded engine with this limit is always at it, like
    a closed loop of as many users. So the most users that still met the SLO in closed loop is the limit that costs no
    goodput.
    """
    judged = [record for record in users if not record.void]
    met = [record.users for record in judged if record.met]
    if met:
        limit, source = max(met), "the most users that met the SLO in closed loop"
    elif in_system is not None:
        limit = math.ceil(in_system)
        missed = [record.users for record in judged if record.met is False]
        limit = max(1, min([limit, *(number - 1 for number in missed)]))
        source = "requests in the engine at the edge, by Little's law and the closed loops that missed"
    else:
        return None
    return {
        "setting": f"MAX_CONCURRENT_REQUESTS={limit}",
        "max_num_queued_reqs": limit,
        "reason": f"{limit}: {source}. What comes beyond it gets a 503 at once, instead of making all others late",
    }
