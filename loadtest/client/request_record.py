"""Result of one request: outcome, times and tokens."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

NS = 1e-9


class Outcome(enum.StrEnum):
    """Outcome of a request; exactly one holds."""

    OK = "ok"  # a terminal finish_reason, [DONE] where it streams, and text or a tool call
    EMPTY = "empty"  # a good end, but no text and no tool call
    FILTERED = "filtered"  # a content filter cut the answer
    ERROR = "error"  # an HTTP error, an error inside the stream, or an invalid response
    REJECTED = "rejected"  # 429 or 503: the server shed load
    TRUNCATED = "truncated"  # it ended without a terminal state
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"  # the test stopped first
    CONNECT = "connect"  # no connection


@dataclass(slots=True)
class RequestRecord:
    """One request. Times in seconds; None if not observed or not defined for this request.

    ttft: request sent to the first non-empty delta. ttfat: to the first delta with text or a tool call, not reasoning.
    tpot: (last delta - first delta) / (output tokens - 1), with the server's token count, without reasoning that was
    not sent. e2e: sent to the last delta; not streaming, to the last byte. gaps: between consecutive non-empty deltas.
    schedule_delay: due to sent, in open loop.
    """

    index: int
    endpoint: str
    outcome: Outcome
    sent_at: float  # Unix time
    detail: str = ""
    own_limit: str = ""  # limit of this machine that kept it from being sent
    retry_after: float | None = None  # seconds to wait before the next request, asked for by the server
    status: int = 0
    duration: float = 0.0  # sent to the end, for every outcome
    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None
    gaps: list[float] = field(default_factory=list)
    schedule_delay: float | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    expected_prompt_tokens: int | None = None
    response_bytes: int = 0
    merged_deltas: int = 0  # deltas in one read with the next: their own arrival is not known exactly
    kernel_stamped: bool = False
    lags: list[float] = field(default_factory=list)  # per read, from the kernel's stamp to the read
    ttfat: float | None = None
    reasoning_tokens: int = 0
    uncounted: bool = False  # the server sent a whole answer without token counts

    @property
    def failed(self) -> bool:
        """True if the server failed the request; a cancelled request is no failure."""
        return self.outcome not in {Outcome.OK, Outcome.CANCELLED}
