"""Run a capacity search inside Locust: a sequence of stages, each a load of its own."""

from __future__ import annotations

import dataclasses
import logging
import time
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar

import gevent

from loadtest.capacity.answer import SearchSettings, SloLimits
from loadtest.capacity.bottleneck.engine_series import read_cache_config, read_version, summarize_samples
from loadtest.capacity.bottleneck.host_cores import engine_is_here
from loadtest.capacity.execution.closed_loop import (
    FEWEST_REQUESTS,
    WARMUP_REQUESTS,
    judge_users,
    make_record,
    next_users,
)
from loadtest.capacity.execution.stage_runner import NobodyToSendError, StageRunner
from loadtest.capacity.execution.window import due_times
from loadtest.capacity.finding import SearchFinding, select_stages
from loadtest.capacity.report.capacity_page import render_capacity
from loadtest.capacity.report.capacity_summary import INVALID, exit_code, summarize_search
from loadtest.capacity.report.capacity_terminal import print_capacity
from loadtest.capacity.report.progress import SearchProgress
from loadtest.capacity.search.search import Search
from loadtest.capacity.stage import Decision, StageResult
from loadtest.capacity.stage_record import StageRecord, latencies
from loadtest.client.request_record import Outcome
from loadtest.report.report_folder import CAPACITY_SUMMARY
from loadtest.results.server_counters import engine_targets
from loadtest.sending.pacing import LoadSpec
from loadtest.settings.run_options import Pacing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadtest.capacity.execution.stage_runner import StageRun
    from loadtest.capacity.execution.window import MeasuredWindow
    from loadtest.capacity.report.capacity_metrics import CapacityMetrics
    from loadtest.capacity.stage import StagePlan
    from loadtest.results.run_results import RunResults
    from loadtest.settings.capacity_options import CapacityOptions
    from loadtest.settings.run_options import RunOptions
    from loadtest.single_run import RunContext

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# Share of the budget kept for closed loops, its maximum in seconds, and the least for one of them.
_USERS_SHARE, _USERS_MOST_S, _USERS_LEAST_S = 0.1, 120.0, 3.0
# Requests whose lengths represent the workload in the long run.
_LENGTHS = 20_000
# Load numbers of the closed loops start here, above those of the stages.
_USERS_LOADS = 1_000_000
# Ratio of rates from which on they count as the same for the client.
_SAME_RATE = 0.9


class CapacityRun:
    """One search, from Locust's start to its stop."""

    def __init__(self, context: RunContext, capacity_metrics: CapacityMetrics) -> None:
        options, plan, workload = context.options, context.plan, context.workload
        capacity = options.capacity
        assert capacity is not None  # noqa: S101  # for the type checker: the coordinator checks
        self._workers = context.workers
        self._capacity_metrics = capacity_metrics
        self._options = options
        self._plan = plan
        self._folder = context.folder
        self._settings = _settings(options, capacity)
        self._search = Search(self._settings, workload.lengths(_LENGTHS))
        self._runner = StageRunner(context)
        self._began = 0.0  # monotonic
        self._greenlet: Any = None
        self._done = False
        self._client_failed_at: float | None = None  # lowest rate
        self.finding = SearchFinding(
            options, plan, (*options.target.notes, *workload.notes), self._settings, capacity.budget_s
        )
        self.progress = SearchProgress(self._settings, capacity.budget_s)
        self.summary: dict[str, Any] | None = None
        self.exit_code: int | None = None

    @property
    def run_id(self) -> str:
        """The run's id, also the name of its folder."""
        return self._plan.run_id

    # The coordinator's interface.

    @property
    def results(self) -> RunResults | None:
        """Results of the current or last stage."""
        return self._runner.results

    def start(self) -> None:
        # Imported before the first stage: during it, the import would delay the sending by up to a second.
        import scipy.optimize  # type: ignore[import-untyped]  # noqa: PLC0415
        import scipy.special  # type: ignore[import-untyped]  # noqa: F401, PLC0415

        target = self._options.target
        self.finding.cache_config = read_cache_config(target)
        self.finding.engine_version = read_version(target)
        self.finding.engines = len(engine_targets(target))
        self.finding.engine_is_here = engine_is_here(target)
        self._began = time.monotonic()
        self._capacity_metrics.follow(self.progress)
        log.info("Search %s: model %s, seed %d", self._plan.run_id, self._plan.model, self._plan.seed)
        self._greenlet = gevent.spawn(self._run)

    def add(self, process: str, report: Mapping[str, Any]) -> None:
        self._runner.add(process, report)

    def tick(self) -> bool:
        self._runner.mark_lost_processes()
        return self._done

    def reset(self) -> None:
        log.warning("a search keeps its numbers: it measures each stage on its own")

    def refuse(self, problem: str) -> bool:
        if self.finding.stages:
            self.finding.problem = problem
            return True
        # Do not block: the killed greenlet may wait for messages that this greenlet delivers.
        self._greenlet.kill(block=False)
        self.progress.running = False
        if self._folder is not None:
            self._folder.discard()
        return False

    def stop(self) -> None:
        if not self._done:  # an interrupt may have ended the greenlet already
            self.finding.stopped = True
            self._greenlet.kill()
        self._runner.end()

    def conclude(self) -> None:
        self.finding.answer = self._search.answer()
        self.finding.duration_s = time.monotonic() - self._began
        if self._folder is not None:
            self.finding.notes += self._folder.close_rows()
        self.summary = summary = summarize_search(self.finding)
        self.exit_code = exit_code(summary)
        self.progress.end(summary)
        if self._folder is not None and not self._folder.write(
            CAPACITY_SUMMARY, summary, lambda _: render_capacity(summary, latencies(self.finding.stages))
        ):
            self.exit_code = INVALID
        self._capacity_metrics.add_result(summary)

    def print(self) -> None:
        if self.summary is not None:
            print_capacity(self.summary)

    # Stages.

    def _run(self) -> None:
        try:
            self._runner.await_processes(len(self._workers.names()))
            while (stage := _in_thread(self._search.next_stage, self._elapsed())) is not None:
                self._run_stage(stage)
            self._find_users()
        except NobodyToSendError as error:
            self.finding.problem = str(error)
        except Exception:
            log.exception("the search has failed")
            self.finding.problem = "the search failed; its log says why"
        self._done = True

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _run_stage(self, plan: StagePlan) -> None:
        pacing = Pacing("poisson", plan.rate, 1.0, 1.0, None, 0)
        load = LoadSpec(plan.number, pacing, self._plan.seed + plan.number, self._runner.next_number)
        warmup = sum(1 for _ in takewhile(lambda due: due < plan.warmup_s, due_times(load)))
        load = dataclasses.replace(load, pacing=dataclasses.replace(pacing, warmup_requests=warmup))

        def ended(window: MeasuredWindow) -> bool:
            measured = window.measured
            self.progress.update_stage(plan, measured)
            decided = self._search.decide(plan, measured) is not Decision.MORE
            return decided or self._elapsed() > self._settings.budget_s

        self.progress.begin_stage(plan)
        stage_run = self._runner.run(load, ended)
        result = StageResult(
            plan=plan,
            requests=stage_run.window.measured,
            duration_s=stage_run.duration_s,
            warmup=stage_run.window.warmup,
            void=stage_run.void,
            client_limited=self._client_is_at_its_limit(stage_run, plan.rate),
        )
        _in_thread(self._search.add, result)
        record = StageRecord(
            result=result,
            load=load,
            started=stage_run.started,
            evidence=summarize_samples(
                [sample for sample in stage_run.samples if sample.at >= stage_run.began + plan.warmup_s]
            ),
            client=stage_run.client,
            samples=stage_run.samples,
            began=stage_run.began,
            processes=stage_run.processes,
            failures=stage_run.window.failures,
            others_cpu=stage_run.others_cpu,
        )
        self.finding.stages.append(record)
        self.progress.end_stage(self._search.answer(), record)

    def _client_is_at_its_limit(self, stage_run: StageRun, rate: float) -> bool:
        """Return whether the client failed twice near this rate; once may be a disturbance of the host."""
        before = self._client_failed_at
        if stage_run.client_problems:
            self._client_failed_at = rate if before is None else min(before, rate)
        return bool(stage_run.client_problems) and before is not None and rate > before * _SAME_RATE

    # Closed loops at the capacity.

    def _find_users(self) -> None:
        answer = self._search.answer()
        in_system = select_stages(answer, self.finding.stages).in_system
        if in_system is None:
            return
        first = max(1, round(in_system))
        while (users := next_users(first, self.finding.users)) is not None:
            left = self.finding.budget_s - self._elapsed()
            if left < _USERS_LEAST_S:
                return
            self._run_users(users, in_system / (answer.mid or answer.low or 1.0), min(left, _USERS_MOST_S / 3))

    def _run_users(self, users: int, request_s: float, seconds: float) -> None:
        load = LoadSpec(
            number=_USERS_LOADS + len(self.finding.users),
            pacing=Pacing("closed", None, 1.0, 1.0, None, WARMUP_REQUESTS * users),
            seed=self._plan.seed,
            first_request=self._runner.next_number,
            users=users,
            users_over_s=request_s,
        )
        until = time.monotonic() + seconds

        def ended(window: MeasuredWindow) -> bool:
            good = [request.good for request in window.measured]
            self.progress.update_users(users, good)
            decided = judge_users(sum(good), len(good), self._settings)[0] is not None
            return (len(good) >= max(FEWEST_REQUESTS, 3 * users) and decided) or time.monotonic() > until

        self.progress.begin_users(len(self.progress.rows), users)
        stage_run = self._runner.run(load, ended)
        totals = stage_run.results.measured.combined()
        ok, measured_s = totals.outcomes[Outcome.OK.value], totals.last_ended - totals.first_sent
        record = make_record(
            users,
            stage_run.window.measured,
            self._settings,
            rate=ok / measured_s if ok and measured_s > 0 else None,
            void=stage_run.void,
            duration_s=stage_run.duration_s,
            paused_share=totals.paused_s / (users * measured_s) if measured_s > 0 else 0.0,
        )
        self.finding.users.append(record)
        self.progress.end_users(record)


def _in_thread(function: Callable[[Any], Result], argument: Any) -> Result:
    """Call a method of the search in a thread: it may simulate for seconds, and heartbeats and the web page go on."""
    result: Result = gevent.get_hub().threadpool.apply(function, (argument,))
    return result


def _settings(options: RunOptions, capacity: CapacityOptions) -> SearchSettings:
    """Return the search's settings; part of the budget is kept for the closed loops."""
    defaults = SearchSettings()
    max_rate = capacity.max_rate or defaults.max_rate
    return SearchSettings(
        objective=options.slo_percentile / 100,
        limits=SloLimits(options.slo.ttft, options.slo.tpot, options.slo.e2e),
        budget_s=capacity.budget_s - min(_USERS_MOST_S, _USERS_SHARE * capacity.budget_s),
        start_rate=min(capacity.start_rate or defaults.start_rate, max_rate),
        max_rate=max_rate,
        relative_interval=capacity.relative_interval,
        confidence=defaults.confidence,
    )
