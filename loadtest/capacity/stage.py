"""One stage of a capacity search, which is load at one rate: its plan and its result."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Purpose = Literal["probe", "bracket", "bisect", "edge"]
# What can limit an engine; one vocabulary for the diagnosis, the simulated engines and the docs.
Cause = Literal[
    "batch_slots",  # max_num_seqs: requests wait although the engine could run more
    "kv_cache",  # blocks of the KV cache: requests wait or are preempted
    "prefill_compute",  # prompt tokens: the time to the first token
    "decode_speed",  # the time of a step: the time per output token
    "front_end",  # the API server's process: tokenizing, parsing, streaming
    "admission_limit",  # the server rejects requests that would queue
    "client",  # the load generator
    "host_cpu",  # other programs use the cores of the engine's host
    "requests_failed",  # requests fail, for whatever reason the server gives
    "unknown",  # no cause is shown by the evidence
]


class Decision(enum.StrEnum):
    """Verdict on a stage from its requests so far."""

    MORE = "more"  # keep sending
    MET = "met"
    MISSED = "missed"
    UNDECIDED = "undecided"  # `max_requests` were measured, and the interval still contains the objective


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Load to send: Poisson arrivals with a seed of their own."""

    number: int
    rate: float  # requests/s
    purpose: Purpose
    warmup_s: float  # seconds of the schedule that are sent but not measured
    min_requests: int  # measured requests before any decision
    max_requests: int  # measured requests at which the stage ends in any case


@dataclass(frozen=True, slots=True)
class StageRequest:
    """One request. Times in seconds, from its due time; None where not observed, and if it did not end ok."""

    due_s: float  # since the stage's start; a measured one is due after `warmup_s`
    good: bool  # ended ok within every limit of the SLO; anything else is a miss
    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float | None
    prompt_tokens: int
    output_tokens: int  # counted by the server; else the number asked for
    rejected: bool = False  # 429 or 503: the server shed load
    ended_s: float | None = None  # its end, however it ended
    uncounted: bool = False  # ended ok without token counts from the server

    @property
    def failed(self) -> bool:
        """True if it did not end ok, also if it was rejected."""
        return self.e2e_s is None


def mean_output_tokens(ended: Sequence[StageRequest]) -> float | None:
    """Return the mean over requests that ended ok; None for none, and where the server has not counted each."""
    if not ended or any(request.uncounted for request in ended):
        return None
    return sum(request.output_tokens for request in ended) / len(ended)


@dataclass(frozen=True, slots=True)
class StageResult:
    """Requests of a stage that has ended.

    `requests` is a complete prefix of the window in due order: every request that was due, however it ended. Requests
    still in flight when the stage was cut short are left out, always from the end. `warmup` holds the requests due
    before the window: the twin replays them too.
    """

    plan: StagePlan
    requests: tuple[StageRequest, ...]
    duration_s: float  # of the whole stage, with warm-up and draining
    warmup: tuple[StageRequest, ...] = ()
    void: tuple[str, ...] = ()  # why this stage does not count; empty if it counts
    client_limited: bool = False  # the client could not send at this rate
