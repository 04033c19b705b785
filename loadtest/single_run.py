"""Interface and context of a run, and the run of a single load."""

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
    """The objects that a run works with."""

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
    """A run from Locust's start to its stop, called by the coordinator."""

    @property
    def results(self) -> RunResults | None:
        """Results for the web page; None before anything is sent."""

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process; None until the run is concluded."""

    def start(self) -> None:
        """Start the run: Locust has started. Raises InputError."""

    def add(self, process: str, report: Mapping[str, Any]) -> None:
        """Add a report of `process`."""

    def tick(self) -> bool:
        """Supervise the run, about once a second; return True when it is complete."""

    def reset(self) -> None:
        """Measure anew: Locust's statistics were reset."""

    def refuse(self, problem: str) -> bool:
        """Handle a process that cannot take part. Returns True if there are results to conclude, else drops the run."""

    def stop(self) -> None:
        """Stop the workers and take their last reports: Locust stops."""

    def conclude(self) -> None:
        """Judge the run and write its report: Locust has stopped."""

    def print(self) -> None:
        """Print the result on the terminal."""


class SingleRun:
    """Run of a single load, from start to stop."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._workers = context.workers
        self._started = context.workers.alone  # a process without a master starts by itself
        self._summary: dict[str, Any] | None = None
        self.exit_code: int | None = None
        self.results = RunResults(
            context.options, context.plan, (*context.options.target.notes, *context.workload.notes), context.rows
        )

    def start(self) -> None:
        results = self.results
        results.server_before = read_counters(results.options.target)
        self._context.metrics.start_run(results, results.options.pacing.rate or 0.0)
        log.info("Run %s: model %s, seed %d", results.plan.run_id, results.plan.model, results.plan.seed)

    def add(self, process: str, report: Mapping[str, Any]) -> None:
        if report["run"] != self.results.plan.run_id:
            return  # a worker reports on the previous run until it gets this one
        self._context.metrics.add(self.results.add_report(process, report))

    def tick(self) -> bool:
        self._note_lost_workers()
        if not self._workers.alone:
            self._started = self._started or self._workers.start_when_ready(self.results.plan.shards)
        if self.results.all_ended:
            log.info("All requests were sent and have ended")
            return True
        return False

    def _note_lost_workers(self) -> None:
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
        self._note_lost_workers()
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
    """Compare a run that has ended with the server's counters; None if the server had none at its start.

    If no engine answers at the end, all engines count as gone, and with them their counters.
    """
    if results.server_before is None:
        return None
    totals = RunTotals(results.options.slo)
    totals.merge(results.measured)
    totals.merge(results.unmeasured)
    server = difference(results.server_before, results.server_after or ServerCounters())
    common = {str(endpoint): tokens for endpoint, tokens in workload.common_tokens.items()}
    lost = any(process.lost_after_s is not None for process in results.processes.values())
    return reconcile(server, totals, common, lost=lost)
