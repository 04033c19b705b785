"""Figures of the engine at its capacity, and under light load for comparison."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loadtest.capacity.bottleneck.engine_series import by_engine
from loadtest.capacity.bottleneck.step_times import fit_step_times
from loadtest.capacity.stage_record import Misses, count_misses
from loadtest.results.failure_texts import FailureText, FailureTexts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.capacity.bottleneck.step_times import StepTimes, Vector
    from loadtest.capacity.finding import StageSelection
    from loadtest.capacity.stage_record import StageRecord
    from loadtest.settings.run_options import Slo

# Share of used blocks at which the KV cache counts as full: a new request does not get its blocks.
_FULL = 0.9
# Share of the largest batch at which, while requests wait, the batch counts as full.
_PLATEAU = 0.9
# Share of all cores at which a host has none to spare, and used by others from which on they count as taken.
HOST_FULL = 0.85
_MUCH_BY_OTHERS = 0.2


@dataclass(frozen=True, slots=True)
class Waits:
    """Mean seconds until the first token, between tokens, and from the first to the last; None if unknown."""

    queue: float | None  # in the engine's queue
    prefill: float | None  # first step to first token
    outside: float | None  # the rest of the client's TTFT: API server and network
    tpot: float | None  # at the client
    tpot_outside: float | None  # ... minus the engine's own
    generation: float | None = None  # at the client, first to last token


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Facts about the engine that no load changes."""

    cache_config: Mapping[str, str] = field(default_factory=dict)  # labels of `vllm:cache_config_info`
    is_here: bool = False  # on the load generator's host, as far as known
    step_limit: int | None = None  # tokens a step may have; None: the engine's default

    @property
    def on_cpu(self) -> bool:
        """True if the KV cache has a size in bytes, as it has on CPUs."""
        return bool(self.cache_config.get("kv_cache_memory_bytes"))


@dataclass(frozen=True, slots=True)
class SaturationEvidence:
    """Figures at saturation, and under the lightest load; the two are equal if there was no lighter one."""

    misses: Misses
    idle: Waits
    saturated: Waits
    engine: Mapping[str, Any]  # of `engine_series.summarize_samples`; empty without metrics
    step_times: StepTimes | None = None
    rate: float | None = None  # requests/s of the stage of `saturated` and `engine`
    failures: Sequence[FailureText] = ()
    others_cpu: float | None = None  # share of the load generator's host's cores that others use
    facts: EngineFacts = field(default_factory=EngineFacts)

    def step_shares(self) -> Vector | None:
        """Return the shares of the steps' time: steps themselves, prompts, outputs; None if not known."""
        engine = self.engine
        if self.step_times is None or not engine.get("steps_per_s"):
            return None
        return self.step_times.shares(
            engine["steps_per_s"], engine["prompt_tokens_per_s"], engine["output_tokens_per_s"]
        )

    def kv_full(self) -> bool:
        """Return whether the KV cache was full, while requests waited if any did."""
        queued: list[float] = self.engine.get("kv_usage_while_queued") or []
        if queued:
            return sum(usage >= _FULL for usage in queued) > len(queued) / 2
        return bool(self.engine.get("kv_usage_max", 0.0) >= _FULL)

    def batch_full(self) -> bool:
        """Return whether the batch stayed at its largest while requests waited."""
        queued: list[float] = self.engine.get("running_while_queued") or []
        return bool(queued) and sum(running >= _PLATEAU * max(queued) for running in queued) > len(queued) / 2

    def others_take_cores(self) -> bool:
        """Return whether others use cores that the engine lacks."""
        return (
            self.facts.is_here
            and (self.others_cpu or 0.0) >= _MUCH_BY_OTHERS
            and self.engine.get("host_cpu", 0.0) >= HOST_FULL
        )


def gather(stages: StageSelection, slo: Slo, facts: EngineFacts) -> SaturationEvidence:
    """Return the evidence in `stages`, of which there is one at least."""
    assert stages.lightest is not None  # noqa: S101  # the caller checks
    # The stage that missed most shows best what limits the engine.
    worst = max(stages.saturated, key=lambda record: record.missed_share)
    failures = FailureTexts()
    for record in stages.saturated:
        failures.merge(record.failures)
    return SaturationEvidence(
        misses=count_misses([request for record in stages.saturated for request in record.result.requests], slo),
        idle=_waits(stages.lightest),
        saturated=_waits(worst),
        engine=worst.evidence,
        step_times=fit_step_times([series for record in stages.counting for series in by_engine(record.samples)]),
        rate=worst.result.plan.rate,
        failures=failures.most_frequent(),
        others_cpu=_mean([record.others_cpu for record in stages.counting if record.others_cpu is not None]),
        facts=facts,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _waits(record: StageRecord) -> Waits:
    ended = [request for request in record.result.requests if request.e2e_s is not None]
    ttft = _mean([request.ttft_s for request in ended if request.ttft_s is not None])
    tpot = _mean([request.tpot_s for request in ended if request.tpot_s is not None])
    tokens = _mean([float(request.output_tokens) for request in ended if request.output_tokens > 1])
    queue, prefill = record.evidence.get("queue_s"), record.evidence.get("prefill_s")
    decode = record.evidence.get("decode_s")
    outside = tpot_outside = None
    if ttft is not None and queue is not None and prefill is not None:
        outside = max(0.0, ttft - queue - prefill)
    if tpot is not None and tokens is not None and decode is not None:
        tpot_outside = max(0.0, tpot - decode / (tokens - 1))
    generation = _mean(
        [
            request.e2e_s - request.ttft_s
            for request in ended
            if request.e2e_s is not None and request.ttft_s is not None
        ]
    )
    return Waits(queue, prefill, outside, tpot, tpot_outside, generation)
