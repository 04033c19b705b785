"""Verdict on a run: is it valid, and did it meet its SLO."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtest.client.request_record import Outcome

if TYPE_CHECKING:
    from loadtest.results.reconcile import Reconciliation
    from loadtest.results.run_results import RunResults
    from loadtest.results.totals import Totals

# Share of a process's time above 90 % of a core at which the client counts as the bottleneck.
_BUSY_SHARE = 0.1
_FEWEST_BUSY_S = 2.0
# Bytes read this late (p99) may hold several deltas that the kernel merged under one time stamp.
_LAG_LIMIT_S = 0.005
_MERGED_SHARE = 0.01
# Open loop: requests sent later than this; more than _LATE_SHARE of them make another load than requested.
LATE_S = 0.010
# If all containers stop at once, the workers leave before the master; that only shortens the run.
_LEFT_EARLY_S = 5.0
_LATE_SHARE = 0.01

MET, MISSED, INVALID = 0, 1, 2


@dataclass(frozen=True, slots=True)
class RunVerdict:
    """Verdict on one run.

    `reasons`: why it is invalid, empty if it is valid. `attainment`: share of requests that met the SLO, None without
    an SLO; requests cut off by the end of the run count only if their limit had passed, as missed. `failures`: number
    of requests that did not end ok.
    """

    reasons: tuple[str, ...]
    attainment: float | None
    slo_met: bool | None
    failures: int

    @property
    def valid(self) -> bool:
        """True if the run's figures can be trusted."""
        return not self.reasons

    @property
    def exit_code(self) -> int:
        """0: valid, SLO met. 1: SLO missed, or without an SLO, any request failed. 2: invalid."""
        if not self.valid:
            return INVALID
        met = self.slo_met if self.slo_met is not None else not self.failures
        return MET if met else MISSED


def judge_run(results: RunResults, reconciliation: Reconciliation | None) -> RunVerdict:
    """Judge a run that has ended. `reconciliation`: None if the server has no counters."""
    totals = results.measured.combined()
    ended = totals.outcomes.total() - totals.outcomes[Outcome.CANCELLED.value]
    counted = ended + totals.cut_off_late
    ok = totals.outcomes[Outcome.OK.value]
    server = judge_server(results, reconciliation)
    client = [*own_limit_problems(totals), *busy_problems(results), *_merged(totals), *_late(totals)]
    reasons = [*_no_requests(counted), *client, *server]
    attainment = totals.good / counted if counted and results.options.slo.asked else None
    met = None if attainment is None else attainment * 100 >= results.options.slo_percentile
    return RunVerdict(tuple(reasons), attainment, met, ended - ok)


def judge_server(results: RunResults, reconciliation: Reconciliation | None) -> list[str]:
    """Return the problems on the server's side and of lost or stopped processes, one line each."""
    return [
        *results.refusals,
        *_lost(results, reconciliation),
        *_left(results),
        *(reconciliation.problems if reconciliation is not None else ()),
    ]


def _no_requests(counted: int) -> list[str]:
    return [] if counted else ["no request ended while it was measured"]


def _lost(results: RunResults, reconciliation: Reconciliation | None) -> list[str]:
    surplus = "" if reconciliation is None else f" ({reconciliation.surplus})"
    return [
        f"load generator {name} was lost {process.lost_after_s:.0f} s into the run: its {process.in_flight} requests "
        f"under way, and what it did since its last report, are missing{surplus}"
        for name, process in results.processes.items()
        if process.lost_after_s is not None
    ]


def _left(results: RunResults) -> list[str]:
    ran_s = (results.ended_at or time.time()) - results.plan.started
    return [
        f"load generator {name} was told to end {process.left_after_s:.0f} s into the run, which went on for "
        f"{ran_s - process.left_after_s:.0f} s: from then on the load was another than was asked for"
        for name, process in results.processes.items()
        if process.left_after_s is not None and ran_s - process.left_after_s > _LEFT_EARLY_S
    ]


def own_limit_problems(totals: Totals) -> list[str]:
    """Return the limits of the client's machine that kept requests from being sent, and how to raise them."""
    return [
        f"the client was the limit, not the server: {count} requests could not be sent, {limit}"
        for limit, count in totals.own_limits.most_common()
    ]


def busy_problems(results: RunResults) -> list[str]:
    """Return one line for each load-generating process without spare CPU."""
    return [
        f"the client was the bottleneck: {name} was above 90 % of a core for {process.busy_s:.0f} of "
        f"{process.wall_s:.0f} s; spread the load over more processes (--processes, workers)"
        for name, process in results.processes.items()
        if process.busy_s >= _FEWEST_BUSY_S and process.busy_s > _BUSY_SHARE * process.wall_s
    ]


def _merged(totals: Totals) -> list[str]:
    lag = totals.distributions["lag"].percentile(99)
    if lag is None or lag <= _LAG_LIMIT_S or totals.merged_deltas <= _MERGED_SHARE * totals.deltas:
        return []
    share = totals.merged_deltas / totals.deltas
    return [
        (
            f"the client was the bottleneck: it read late (p99 {lag * 1000:.0f} ms) and {share:.1%} of the tokens ran "
            "together; spread the load over more processes (--processes, workers)"
        )
    ]


def _late(totals: Totals) -> list[str]:
    delay = totals.distributions["schedule_delay"]
    if not delay.count:
        return []
    late = delay.count - dict(delay.cumulative())[LATE_S]
    if late <= _LATE_SHARE * delay.count:
        return []
    return [
        (
            f"arrivals were late: {late} of {delay.count} requests were sent more than {LATE_S * 1000:.0f} ms after "
            "they were due; spread the load over more processes (--processes, workers)"
        )
    ]
