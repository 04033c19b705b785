"""Live rates of the last seconds, for the web page."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadtest.results.totals import RunTotals

WINDOW_S = 20.0


@dataclass(slots=True)
class Tally:
    """Requests and tokens of one endpoint that one report added."""

    at: float
    endpoint: str
    requests: int
    good: int
    prompt_tokens: int
    output_tokens: int
    uncounted: int


class LiveRates:
    """Rates over the last `WINDOW_S` seconds. A request counts when it has ended, with all its tokens."""

    def __init__(self) -> None:
        self._tallies: deque[Tally] = deque()
        self._started = time.monotonic()

    def add(self, delta: RunTotals) -> None:
        """Add the totals of one report, as of now."""
        now = time.monotonic()
        for endpoint, totals in delta.endpoints.items():
            self._tallies.append(
                Tally(
                    now,
                    endpoint,
                    totals.outcomes.total(),
                    totals.good,
                    totals.prompt_tokens,
                    totals.output_tokens,
                    totals.uncounted,
                )
            )

    def per_second(self, endpoint: str | None = None) -> dict[str, float]:
        """Return requests, good requests, prompt and output tokens per second, of one endpoint or (None) of all.

        Tokens are NaN while answers come without token counts.
        """
        now = time.monotonic()
        while self._tallies and self._tallies[0].at < now - WINDOW_S:
            self._tallies.popleft()
        chosen = [tally for tally in self._tallies if endpoint in {None, tally.endpoint}]
        span = min(WINDOW_S, max(1.0, now - self._started))
        unknown = math.nan if any(tally.uncounted for tally in chosen) else 0.0
        return {
            "requests": sum(tally.requests for tally in chosen) / span,
            "good": sum(tally.good for tally in chosen) / span,
            "prompt_tokens": unknown or sum(tally.prompt_tokens for tally in chosen) / span,
            "output_tokens": unknown or sum(tally.output_tokens for tally in chosen) / span,
        }
