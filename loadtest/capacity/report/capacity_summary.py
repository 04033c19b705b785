"""`capacity.json`: the capacity and its interval, the bottleneck, all stages, and the fingerprint of the run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from loadtest.capacity.bottleneck.advice import read_step_limit
from loadtest.capacity.bottleneck.diagnosis import find_bottleneck
from loadtest.capacity.bottleneck.engine_series import theoretical_concurrency
from loadtest.capacity.bottleneck.queue_limit import queue_limit
from loadtest.capacity.bottleneck.saturation import EngineFacts
from loadtest.capacity.finding import select_stages
from loadtest.capacity.report.fingerprint import engine_settings, fingerprint
from loadtest.capacity.stage import mean_output_tokens
from loadtest.capacity.stage_record import curve_point, thinned
from loadtest.results.failure_texts import FailureTexts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.capacity.answer import SearchAnswer, StageVerdict
    from loadtest.capacity.finding import SearchFinding
    from loadtest.capacity.stage_record import StageRecord, UsersRecord
    from loadtest.settings.run_options import Slo

FORMAT = 1
_MOST_SAMPLES = 120
_MOST_SHAPES = 2000
FOUND, NEVER_MET, INVALID = 0, 1, 2


def summarize_search(finding: SearchFinding) -> dict[str, Any]:
    """Return the content of `capacity.json`, JSON values only."""
    answer = finding.answer
    assert answer is not None  # noqa: S101  # set by the run before
    stages = select_stages(answer, finding.stages)
    ended = [request for record in stages.counting for request in record.result.requests if request.e2e_s is not None]
    prompt = sum(request.prompt_tokens for request in ended) / len(ended) if ended else None
    output = mean_output_tokens(ended)
    rates = {"low": answer.low, "mid": answer.mid, "high": answer.high}
    reasons = _reasons(finding, answer, counted=bool(stages.counting))
    limit = overload = None
    if not reasons:
        limit = find_bottleneck(
            answer,
            stages,
            finding.options.slo,
            EngineFacts(
                finding.cache_config,
                is_here=finding.engine_is_here,
                step_limit=read_step_limit(engine_settings().get("VLLM_EXTRA_ARGS", "")),
            ),
        )
        overload = queue_limit(finding.users, stages.in_system) if answer.bound == "edge" else None
    return {
        "format": FORMAT,
        "capacity": {
            "requests_per_second": rates,
            "bound": answer.bound,
            "ended": "stopped" if finding.stopped else answer.ended,
            "confidence": answer.confidence,
            "relative_interval": answer.relative_interval,
            "output_tokens_per_second": {
                name: None if rate is None or output is None else rate * output for name, rate in rates.items()
            },
            # The simulated engine for `capacity plan`.
            "twin": None if answer.twin is None else dataclasses.asdict(answer.twin),
            "prompt_tokens_mean": prompt,
            "output_tokens_mean": output,
            "users": {
                "littles_law": stages.in_system,
                "closed_loop": _closed_loop(finding.users),
                "theoretical_concurrency": (
                    theoretical_concurrency(finding.cache_config, finding.engines, prompt + output)
                    if prompt is not None and output is not None
                    else None
                ),
            },
        },
        "verdict": {"valid": not reasons, "reasons": reasons, "limit": limit},
        "overload": overload,
        "failures": _failures(finding.stages),
        "shapes": thinned(
            [
                (request.prompt_tokens, request.output_tokens)
                for record in stages.counting
                if record.result.plan.purpose == "edge"
                for request in record.result.requests
            ],
            _MOST_SHAPES,
        ),
        "stages": [
            _stage(record, verdict, finding.options.slo)
            for record, verdict in zip(finding.stages, answer.stages, strict=False)
        ],
        "users": [dataclasses.asdict(record) for record in finding.users],
        "run": fingerprint(finding),
    }


def _reasons(finding: SearchFinding, answer: SearchAnswer, *, counted: bool) -> list[str]:
    """Return why the result is invalid; empty if it is valid."""
    reasons = [finding.problem] if finding.problem else []
    if finding.stopped:
        reasons.append("the search was stopped before it had ended")
    if answer.ended == "void":
        last = next((record.result.void for record in reversed(finding.stages) if record.result.void), ())
        reasons += ["stage after stage did not count", *last]
    elif not counted:
        reasons.append("no stage counted")
    elif answer.bound == "floor" and not answer.low:
        reasons.append("no rate was low enough, or long enough, to tell within the time: give a larger --budget")
    return reasons


def _failures(records: Sequence[StageRecord]) -> list[dict[str, Any]]:
    """Return the most frequent failures of the measured requests, in the server's words."""
    failures = FailureTexts()
    for record in records:
        failures.merge(record.failures)
    return [dataclasses.asdict(failure) for failure in failures.most_frequent()]


def _closed_loop(users: Sequence[UsersRecord]) -> dict[str, Any] | None:
    """Return the most users that met and the fewest that missed."""
    judged = [record for record in users if not record.void and record.met is not None]
    if not judged:
        return None
    met = max((record for record in judged if record.met), key=lambda record: record.users, default=None)
    missed = min((record.users for record in judged if not record.met), default=None)
    return {
        "met": met.users if met else None,
        "missed": missed,
        "requests_per_second": met.requests_per_s if met else None,
    }


def _stage(record: StageRecord, verdict: StageVerdict, slo: Slo) -> dict[str, Any]:
    plan = record.result.plan
    return {
        "number": plan.number,
        "purpose": plan.purpose,
        "rate": plan.rate,
        "started": record.started,
        "duration_s": record.result.duration_s,
        "warmup_s": plan.warmup_s,
        "first_request": record.load.first_request + record.load.pacing.warmup_requests,
        "arrivals_seed": record.load.seed,
        "decision": verdict.decision.value,
        "share": verdict.share if verdict.requests else None,
        "share_low": verdict.share_low,
        "share_high": verdict.share_high,
        "effective_requests": verdict.effective_requests,
        "unstable": verdict.unstable,
        "void": list(record.result.void),
        "client_limited": record.result.client_limited,
        "client": dict(record.client),
        "failures": _failures([record]),
        "others_cpu": record.others_cpu,
        **curve_point(record, slo),
        "engine": {name: value for name, value in record.evidence.items() if not isinstance(value, list)},
        # [seconds into the stage, running, waiting, used share of the KV cache]
        "series": [
            [round(sample.at - record.began, 2), sample.running, sample.waiting, round(sample.kv_usage, 4)]
            for sample in thinned(record.samples, _MOST_SAMPLES)
        ],
    }


def exit_code(summary: Mapping[str, Any]) -> int:
    """Return the exit code: 0 if a capacity was found, 1 if the SLO was never met, 2 if the result is invalid."""
    if not summary["verdict"]["valid"]:
        return INVALID
    return NEVER_MET if summary["capacity"]["bound"] == "never_met" else FOUND
