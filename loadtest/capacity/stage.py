"""One stage of a capacity search: load at one rate. What is asked of it, and what came of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

Purpose = Literal["probe", "bracket", "bisect", "edge"]
# What can keep an engine from carrying more; one vocabulary for the verdict, the simulated engines and the docs.
Cause = Literal[
    "batch_slots",  # max_num_seqs: requests wait while the engine could run more
    "kv_cache",  # blocks of the KV cache: requests wait or are preempted
    "prefill_compute",  # prompt tokens: the time to the first token
    "decode_speed",  # the time of a step: the time per output token
    "front_end",  # the API server's process: tokenizing, parsing, streaming
    "admission_limit",  # the server rejects what would queue
    "client",  # the load generator
]


class Decision(enum.StrEnum):
    """What the requests of a stage say so far."""

    MORE = "more"  # go on sending
    MET = "met"
    MISSED = "missed"
    UNDECIDED = "undecided"  # `max_requests` are in, and the interval still holds the objective


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Load to put on the engine: Poisson arrivals with a seed of their own."""

    number: int
    rate: float  # requests/s
    purpose: Purpose
    warmup_s: float  # seconds of the schedule that are sent and not measured
    min_requests: int  # measured requests before any decision
    max_requests: int  # measured requests at which the stage ends in any case


@dataclass(frozen=True, slots=True)
class StageRequest:
    """One request. Times in seconds, from when it was due; None is what was not seen."""

    due_s: float  # since the stage's start; a measured one is due after `warmup_s`
    good: bool  # ended ok within every limit of the SLO; whatever else happened is a miss
    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float | None
    prompt_tokens: int
    output_tokens: int  # as the server counted them; those asked for, where the request did not end ok
    rejected: bool = False  # 429 or 503: the server shed load


@dataclass(frozen=True, slots=True)
class StageResult:
    """What came of a stage.

    `requests` is a complete prefix of the window in due order: every request that was due, however it ended. Those that
    were still under way when the stage was cut short are left out only from the end. `warmup` holds those that were due
    before the window: with them, what is known of the arrivals is taken out of the result's uncertainty.
    """

    plan: StagePlan
    requests: tuple[StageRequest, ...]
    duration_s: float  # of the whole stage, warm-up and draining included
    warmup: tuple[StageRequest, ...] = ()
    void: tuple[str, ...] = ()  # why this stage counts for nothing; empty when it counts
    client_limited: bool = False  # the client could not send at this rate
