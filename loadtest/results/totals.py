"""Totals of a run per endpoint, which merge: each process fills its own, the master adds them up."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self

from loadtest.client.request_record import Outcome, RequestRecord
from loadtest.results import histogram_buckets
from loadtest.results.distribution import Distribution
from loadtest.results.failure_texts import FailureTexts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtest.settings.run_options import Slo


def _edges(slo: Slo) -> dict[str, tuple[float, ...]]:
    """Return the bucket edges per quantity; an SLO limit is always an edge, so its attainment is exact."""

    def with_limit(edges: tuple[float, ...], limit: float | None) -> tuple[float, ...]:
        return edges if limit is None else tuple(sorted({*edges, limit}))

    ttft, e2e = with_limit(histogram_buckets.TTFT, slo.ttft), with_limit(histogram_buckets.REQUEST, slo.e2e)
    return {
        "ttft": ttft,
        "ttft_from_due": ttft,
        "ttfat": ttft,
        "chunk_gap": with_limit(histogram_buckets.TOKEN, slo.tpot),
        "tpot": with_limit(histogram_buckets.TOKEN, slo.tpot),
        "e2e": e2e,
        "e2e_from_due": e2e,
        "schedule_delay": histogram_buckets.DELAY,
        "lag": histogram_buckets.DELAY,
    }


@dataclass(slots=True)
class Totals:
    """Totals of one endpoint."""

    distributions: dict[str, Distribution]
    outcomes: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    good: int = 0  # ended ok within every limit of the SLO
    reasoning_tokens: int = 0  # as far as the server counts them
    uncounted: int = 0  # ended ok without token counts from the server
    tpot_unknown: int = 0  # streams that ended ok, whose time per token is not known
    cut_off_late: int = 0  # cut off by the end of the run, after a limit of the SLO had passed
    reads_stamped: int = 0  # requests with the kernel's time stamp on every read
    requests_read: int = 0  # requests with any response bytes
    merged_deltas: int = 0
    deltas: int = 0
    cut_deltas: int = 0  # deltas of requests that ended without a token count
    prompt_mismatches: int = 0  # prompts whose length by the server differs from the prepared one
    first_sent: float = math.inf  # Unix time
    last_ended: float = 0.0  # Unix time
    deltas_at: Counter[int] = field(default_factory=Counter)  # by Unix second
    failures: FailureTexts = field(default_factory=FailureTexts)
    own_limits: Counter[str] = field(default_factory=Counter)  # requests not sent for want of something here, by what
    pauses: int = 0  # of closed-loop users after failures
    retry_after_pauses: int = 0  # ... as long as the server asked for
    paused_s: float = 0.0  # seconds of users, of pauses that are over

    def count_deltas(self, first: float, gaps: list[float]) -> None:
        """Count each delta in the Unix second of its arrival; `first` is Unix time, `gaps` are seconds."""
        self.deltas_at.update(map(int, accumulate(gaps, initial=first)))


_SUMS = (
    *("prompt_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "good", "cut_off_late", "tpot_unknown"),
    "uncounted",
    *("reads_stamped", "requests_read", "merged_deltas", "deltas", "cut_deltas", "prompt_mismatches"),
    *("pauses", "retry_after_pauses", "paused_s"),
)


class RunTotals:
    """Totals per endpoint for one SLO."""

    def __init__(self, slo: Slo) -> None:
        """Start empty. Only totals of the same SLO merge."""
        self.slo = slo
        self._edges = _edges(slo)
        self.endpoints: dict[str, Totals] = {}

    def totals(self, endpoint: str) -> Totals:
        """Return the totals of `endpoint`, created empty if there are none yet."""
        found = self.endpoints.get(endpoint)
        if found is None:
            found = Totals({name: Distribution(edges) for name, edges in self._edges.items()})
            self.endpoints[endpoint] = found
        return found

    def is_good(self, record: RequestRecord) -> bool:
        """Return whether a request counts as goodput: ended ok within every limit; a time not observed is a miss."""
        if record.outcome is not Outcome.OK:
            return False
        met = True
        for limit, value in (
            (self.slo.ttft, record.ttft),
            (self.slo.e2e, record.e2e),
        ):
            met = met and (limit is None or (value is not None and value <= limit))
        # A response of one token has no time between tokens, so it cannot miss.
        if self.slo.tpot is not None and (record.output_tokens > 1 or record.gaps):
            met = met and record.tpot is not None and record.tpot <= self.slo.tpot
        return met

    def is_cut_off_late(self, record: RequestRecord) -> bool:
        """Return whether the end of the run cut off a request after a limit of the SLO had passed.

        Limits count from the due time: a request that never got a connection was not sent at all. Other requests that
        were cut off might have met the SLO, so they count neither way.
        """
        if record.outcome is not Outcome.CANCELLED:
            return False
        late = record.schedule_delay or 0.0
        first_token = record.duration if record.ttft is None else record.ttft
        return any(
            limit is not None and late + seconds > limit
            for limit, seconds in ((self.slo.ttft, first_token), (self.slo.e2e, record.duration))
        )

    def add(self, record: RequestRecord) -> None:
        """Add one request. Latencies are of requests that ended ok; a failed one counts in its outcome only."""
        totals = self.totals(record.endpoint)
        totals.outcomes[record.outcome.value] += 1
        totals.own_limits.update([record.own_limit] if record.own_limit else [])
        totals.prompt_tokens += record.prompt_tokens
        totals.output_tokens += record.output_tokens
        totals.cached_tokens += record.cached_tokens
        totals.reasoning_tokens += record.reasoning_tokens
        if record.failed:
            totals.failures.add(record.outcome.value, record.detail)
        totals.good += self.is_good(record)
        totals.uncounted += record.outcome is Outcome.OK and record.uncounted
        totals.cut_off_late += self.is_cut_off_late(record)
        totals.merged_deltas += record.merged_deltas
        totals.first_sent = min(totals.first_sent, record.sent_at)
        totals.last_ended = max(totals.last_ended, record.sent_at + record.duration)
        if record.ttft is not None:
            deltas = len(record.gaps) + 1
            totals.deltas += deltas
            totals.cut_deltas += 0 if record.output_tokens else deltas
            totals.count_deltas(record.sent_at + record.ttft, record.gaps)
        if record.prompt_tokens and record.expected_prompt_tokens is not None:
            totals.prompt_mismatches += record.prompt_tokens != record.expected_prompt_tokens
        if record.response_bytes:
            totals.requests_read += 1
            totals.reads_stamped += record.kernel_stamped
        _add_times(totals, record)

    def merge(self, other: RunTotals) -> None:
        """Add the totals of `other`. Raises ValueError if they are of another SLO."""
        for endpoint, theirs in other.endpoints.items():
            mine = self.totals(endpoint)
            mine.outcomes.update(theirs.outcomes)
            for name in _SUMS:
                setattr(mine, name, getattr(mine, name) + getattr(theirs, name))
            mine.first_sent = min(mine.first_sent, theirs.first_sent)
            mine.last_ended = max(mine.last_ended, theirs.last_ended)
            mine.deltas_at.update(theirs.deltas_at)
            mine.failures.merge(theirs.failures)
            mine.own_limits.update(theirs.own_limits)
            for name, distribution in theirs.distributions.items():
                mine.distributions[name].merge(distribution)

    def combined(self) -> Totals:
        """Return the totals of all endpoints together."""
        every = RunTotals(self.slo)
        for totals in self.endpoints.values():
            part = RunTotals(self.slo)
            part.endpoints["all"] = totals
            every.merge(part)
        return every.totals("all")

    def to_wire(self) -> dict[str, Any]:
        """Return a form that msgpack can carry; `from_wire` reads it."""
        return {
            endpoint: {
                "outcomes": dict(totals.outcomes),
                "sums": [getattr(totals, name) for name in _SUMS],
                "window": [totals.first_sent, totals.last_ended],
                "deltas_at": list(totals.deltas_at.items()),
                "failures": totals.failures.to_wire(),
                "own_limits": dict(totals.own_limits),
                "distributions": {
                    name: distribution.to_wire()
                    for name, distribution in totals.distributions.items()
                    if distribution.count
                },
            }
            for endpoint, totals in self.endpoints.items()
        }

    @classmethod
    def from_wire(cls, slo: Slo, wire: Mapping[str, Any]) -> Self:
        """Read the form of `to_wire`, of totals for the same SLO."""
        made = cls(slo)
        for endpoint, part in wire.items():
            totals = made.totals(endpoint)
            totals.outcomes.update(part["outcomes"])
            for name, value in zip(_SUMS, part["sums"], strict=True):
                setattr(totals, name, value)
            totals.first_sent, totals.last_ended = part["window"]
            totals.deltas_at.update(dict(part["deltas_at"]))
            totals.failures = FailureTexts.from_wire(part["failures"])
            totals.own_limits.update(part["own_limits"])
            for name, distribution in part["distributions"].items():
                totals.distributions[name] = Distribution.from_wire(distribution)
        return made


def _add_times(totals: Totals, record: RequestRecord) -> None:
    """Add the times of one request, in seconds."""
    distributions = totals.distributions
    distributions["lag"].add_all(record.lags)
    late = record.schedule_delay
    if late is not None and record.outcome is not Outcome.CANCELLED:
        distributions["schedule_delay"].add(late)
    if record.outcome is not Outcome.OK:
        return
    several_tokens = record.output_tokens > 1 or bool(record.gaps)
    totals.tpot_unknown += record.ttft is not None and record.tpot is None and several_tokens
    distributions["chunk_gap"].add_all(record.gaps)
    for name, value in (
        ("ttft", record.ttft),
        ("ttfat", record.ttfat),
        ("tpot", record.tpot),
        ("e2e", record.e2e),
    ):
        if value is not None:
            distributions[name].add(value)
            if late is not None and name in {"ttft", "e2e"}:
                distributions[f"{name}_from_due"].add(late + value)
