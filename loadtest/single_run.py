"""A run as the coordinator drives it, what it is given, and the run of one load."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from loadtest.report.report_folder import RUN_SUMMARY
from loadtest.report.run_page import render_page
from loadtest.report.run_summary import summarize
from loadtest.report.run_terminal import print_summary, verdict_text
from loadtest.results.csv_rows import read_rows
from loadtest.results.reconcile import reconcile
from loadtest.results.run_results import RunResults
from loadtest.results.run_verdict import INVALID, judge_run
from loadtest.results.server_counters import ServerCounters, difference, read_counters, read_settled_counters
from loadtest.results.totals import RunTotals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtest.report.report_folder import ReportFolder
    from loadtest.results.csv_rows import RowSink
    from loadtest.results.prometheus_metrics import LoadTestMetrics
    from loadtest.results.reconcile import Reconciliation
    from loadtest.sending.workers import Workers
    from loadtest.settings.run_options import RunOptions
    from loadtest.settings.run_plan import RunPlan
    from loadtest.workload import Workload

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a run is given."""

    workers: Workers
    metrics: LoadTestMetrics
    options: RunOptions
    plan: RunPlan
    workload: Workload
    folder: ReportFolder | None  # None: no report is written

    @property
    def rows(self) -> RowSink | None:
        """Takes one row per request, for `requests.csv`."""
        return self.folder.rows if self.folder is not None else None


class Run(Protocol):
    """A run, from Locust's start to its stop."""

    @property
    def results(self) -> RunResults | None:
        """What the page shows."""

    @property
    def exit_code(self) -> int | None:
        """What the process ends with, once the run has ended."""

    def start(self) -> None:
        """Locust has started. Raises InputError."""

    def add(self, process: str, report: Mapping[str, Any]) -> None:
        """Take what a process has reported."""

    def tick(self) -> bool:
        """Look after the run, about once a second; True when it has done all that it had to."""

    def reset(self) -> None:
        """Locust's statistics were reset."""

    def refuse(self, problem: str) -> bool:
        """A process cannot take part. True: something was measured, which is to be concluded; else the run is gone."""

    def stop(self) -> None:
        """Locust stops: have the workers end and hand over the rest."""

    def conclude(self) -> None:
        """Locust has stopped: judge, and write the report."""

    def print(self) -> None:
        """Print the result on the terminal."""


class SingleRun:
    """One load, from start to stop."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._workers = context.workers
        self._started = context.workers.alone  # a process without a master starts by itself
        self._summary: dict[str, Any] | None = None
        self.exit_code: int | None = None
        self.results = RunResults(context.options, context.plan, context.workload.notes, context.rows)

    def start(self) -> None:
        results = self.results
        results.server_before = read_counters(results.options.target)
        self._context.metrics.start_run(results, results.options.pacing.rate or 0.0)
        log.info("Run %s: model %s, seed %d", results.plan.run_id, results.plan.model, results.plan.seed)

    def add(self, process: str, report: Mapping[str, Any]) -> None:
        if report["run"] != self.results.plan.run_id:
            return  # a worker reports on the run before until it has heard of this one
        self._context.metrics.add(self.results.add_report(process, report))

    def tick(self) -> bool:
        if not self._workers.alone:
            self._look_for_lost_workers()
            self._started = self._started or self._workers.start_when_ready(self.results.plan.shards)
        if self.results.all_ended:
            log.info("All requests were sent and have ended")
            return True
        return False

    def _look_for_lost_workers(self) -> None:
        for name in self.results.processes:
            lost = None if self._workers.is_there(name) else self.results.lose(name)
            if lost is not None:
                log.error(
                    "load generator %s was lost with %d requests under way: they, and what it did since its last "
                    "report, are missing in the results",
                    name,
                    lost.in_flight,
                )

    def reset(self) -> None:
        self.results.reset()

    def refuse(self, problem: str) -> bool:
        if self.results.measured_something:
            self.results.refusals.append(problem)
            return True
        if self._context.folder is not None:
            self._context.folder.discard()
        return False

    def stop(self) -> None:
        if self._workers.alone:
            return
        for name, report in self._workers.collect("loadtest_finish", self._workers.names()).items():
            if report is not None:
                self.add(name, report)
            else:
                self.results.lose(name)

    def conclude(self) -> None:
        results, folder = self.results, self._context.folder
        results.ended_at = time.time()
        results.server_after = read_settled_counters(results.options.target)
        reconciliation = reconcile_run(results, self._context.workload)
        verdict = judge_run(results, reconciliation)
        if folder is not None:
            results.notes += folder.close_rows()
        self._summary = summary = summarize(results, verdict, reconciliation)
        self.exit_code = verdict.exit_code
        if folder is not None and not folder.write(
            RUN_SUMMARY, summary, lambda rows: render_page(summary, results, read_rows(rows))
        ):
            self.exit_code = INVALID
        log.info(verdict_text(summary))
        for reason in verdict.reasons:
            log.info("  %s", reason)

    def print(self) -> None:
        if self._summary is not None:
            print_summary(self._summary)


def reconcile_run(results: RunResults, workload: Workload) -> Reconciliation | None:
    """Hold a run that has ended against the server's counters; None where it had none.

    Where none answers any more, the engines are gone with what they counted.
    """
    if results.server_before is None:
        return None
    everything = RunTotals(results.options.slo)
    everything.merge(results.measured)
    everything.merge(results.unmeasured)
    server = difference(results.server_before, results.server_after or ServerCounters())
    common = {str(endpoint): tokens for endpoint, tokens in workload.common_tokens.items()}
    lost = any(process.lost_after_s is not None for process in results.processes.values())
    return reconcile(server, everything, common, lost=lost)
