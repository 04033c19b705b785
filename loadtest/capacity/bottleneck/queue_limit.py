"""The limit on queued requests that keeps an overloaded engine at its best."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from loadtest.capacity.execution.closed_loop import little

if TYPE_CHECKING:
    from loadtest.capacity.report.capacity_summary import SearchFinding


def queue_limit(finding: SearchFinding) -> dict[str, Any] | None:
    """Return what to set, and why; None where no edge was found.

    MAX_CONCURRENT_REQUESTS in .env is vLLM's --max-num-queued-reqs, which bounds all requests that have not ended,
    running or waiting (vLLM 0.32, AsyncLLM.check_admission). An overloaded engine with this limit is always at it: a
    closed loop of so many users. So the most users that still met the SLO in closed loop is the limit that costs no
    goodput.
    """
    answer = finding.answer
    if answer is None or answer.bound != "edge":
        return None
    judged = [record for record in finding.users if not record.void]
    met = [record.users for record in judged if record.met]
    if met:
        limit, source = max(met), "the most users that met the SLO in closed loop"
    else:
        at_edge = little(answer, finding.stages)
        if at_edge is None:
            return None
        missed = min((record.users for record in judged if record.met is False), default=math.inf)
        limit = max(1, min(math.ceil(at_edge), int(missed) - 1 if missed < math.inf else math.ceil(at_edge)))
        source = "requests in the engine at the edge, by Little's law and the closed loops that missed"
    return {
        "setting": f"MAX_CONCURRENT_REQUESTS={limit}",
        "max_num_queued_reqs": limit,
        "reason": f"{limit}: {source}. What comes beyond it gets a 503 at once, instead of making all others late",
    }
