"""Coordinator on the master: starts a run, collects the reports of all processes, and concludes it."""

from __future__ import annotations

from locust import runners
from locust.argument_parser import ui_extra_args_dict

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gevent
from gevent.event import Event
from prometheus_client import start_http_server

from loadtest.capacity.execution.capacity_run import CapacityRun
from loadtest.capacity.report.capacity_metrics import CapacityMetrics
from loadtest.client.own_limits import check_connections
from loadtest.input_error import InputError
from loadtest.locust_plugin import web_page
from loadtest.report.report_folder import ReportFolder
from loadtest.results.prometheus_metrics import LoadTestMetrics
from loadtest.results.run_verdict import INVALID
from loadtest.sending.worker import ALONE
from loadtest.sending.workers import Workers
from loadtest.settings.run_options import RunOptions, read_options
from loadtest.settings.run_plan import RunPlan
from loadtest.single_run import Run, RunContext, SingleRun

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.web import WebUI

    from collections.abc import Mapping

    from loadtest.sending.worker import LoadWorker
    from loadtest.workload import Workload

log = logging.getLogger(__name__)

REPORT_INTERVAL_S = 1.0
# For a run's report to be written.
_FINISH_TIMEOUT_S = 120.0
# Prometheus' scrape interval, and time to answer.
_LAST_SCRAPE_S = 7.0


class Coordinator:
    """Runs the load tests of this Locust, on the master or in its only process."""

    def __init__(self, environment: Environment) -> None:
        """Attach to `environment`, whose runner exists already."""
        self._environment = environment
        self._runner = cast("Any", environment.runner)
        self._workers = Workers(self._runner, self.refuse)
        self._metrics = LoadTestMetrics(lambda: int(self._runner.user_count))
        self._defaults = dict(vars(environment.parsed_options))
        reports = str(vars(environment.parsed_options).get("report_dir") or "")
        self._capacity_metrics = CapacityMetrics(Path(reports) if reports else None)
        self._metrics.add_collector(self._capacity_metrics)
        self._run: Run | None = None
        self._active = False
        self._concluded = Event()  # set unless a run goes on or its report is pending
        self._concluded.set()
        # Set once Prometheus has read the metrics after the last run; None until it has read any.
        self._scraped: Event | None = None
        hook: Any = environment.events  # untyped in Locust
        hook.test_start.add_listener(self._on_test_start)
        hook.test_stopping.add_listener(self._on_test_stopping)
        hook.reset_stats.add_listener(self._on_reset_stats)
        hook.quitting.add_listener(self._on_quitting)
        hook.quit.add_listener(self._on_quit)
        if not self._workers.alone:
            hook.worker_report.add_listener(self._on_worker_report)
            self._runner.register_message("loadtest_left", self._on_left)
        gevent.spawn(self._watch)

    def listen_for_stop(self, local_worker: LoadWorker | None) -> None:
        """Conclude a run when Locust has stopped it; call this after `local_worker`, if any, listens for the same."""
        self._workers.local_worker = local_worker
        hook: Any = self._environment.events  # untyped in Locust
        hook.test_stop.add_listener(self._on_test_stop)

    def install_web(self, web_ui: WebUI) -> None:
        """Add the load test's tab, metrics and form checks to Locust's web page."""

        def check(form: Mapping[str, Any], host: str) -> None:
            self._plan({**vars(self._environment.parsed_options), **form}, host)

        shown = {str(name) for name in ui_extra_args_dict()}
        defaults = {name: value for name, value in self._defaults.items() if name in shown or name == "host"}
        web_page.install(web_ui, self._metrics.registry(), lambda: self._run, check, defaults, self._on_scrape)

    def _on_scrape(self) -> None:
        if self._scraped is None:
            self._scraped = Event()
        self._scraped.set()

    def serve_metrics(self, port: int) -> None:
        """Serve the metrics on a port of their own, for a run without web page. Raises InputError."""
        try:
            start_http_server(port, registry=self._metrics.registry())
        except (OSError, OverflowError) as error:
            raise InputError("--metrics-port", f"{port}: {error}", "give a free port") from None

    def check(self) -> None:
        """Check the options and the server before any worker starts. Raises InputError."""
        values = vars(self._environment.parsed_options)
        options, _, _ = self._plan(values, self._environment.host or "")
        processes = values.get("processes") or 1
        if options.capacity is None and (self._workers.alone or values.get("processes")):
            # This process's limits are those of all.
            check_connections(-(-int(values.get("num_users") or 1) // processes))

    def _plan(self, values: Mapping[str, Any], host: str) -> tuple[RunOptions, RunPlan, Workload]:
        options = read_options(values, host)
        plan = RunPlan.make(options, seed_given=bool(str(values["seed"]).strip()))
        if options.report_dir is not None:
            ReportFolder.check(options.report_dir)
        return options, plan, plan.load_workload(options)

    # A run starts.

    def _on_test_start(self, environment: Environment, **_: Any) -> None:
        values = vars(environment.parsed_options)
        values.pop("loadtest_plan", None)
        self._run, self._active = None, False
        try:
            self._start(values)
        except InputError as error:
            self.refuse(str(error))

    def _start(self, values: dict[str, Any]) -> None:
        options, plan, workload = self._plan(values, self._environment.host or "")
        names = self._workers.names()
        self._check_users(options, len(names))
        plan = plan.deal(names, int(self._runner.target_user_count))
        self._workers.new_run()
        folder = None
        if options.report_dir is not None:
            # One run per folder: Locust's page can start many runs, the command line one.
            many = self._environment.web_ui is not None
            folder = ReportFolder(options.report_dir / plan.run_id if many else options.report_dir)
        context = RunContext(self._workers, self._metrics, options, plan, workload, folder)
        self._run = SingleRun(context) if options.capacity is None else CapacityRun(context, self._capacity_metrics)
        self._concluded.clear()
        self._run.start()
        self._active = True
        # Locust sends the options to each worker with its first users.
        values["loadtest_plan"] = plan.to_wire()

    def _check_users(self, options: RunOptions, processes: int) -> None:
        """Raise InputError unless each process gets a user to send its share of --max-requests."""
        pacing, users = options.pacing, int(self._runner.target_user_count)
        if pacing.arrival == "closed" and pacing.max_requests is not None and users < processes:
            raise InputError(
                "--max-requests",
                f"{users} users leave some of {processes} workers without one, and their share would never be sent",
                f"give at least {processes} users, or start fewer workers",
            )

    def refuse(self, problem: str) -> None:
        """Log `problem` and end the run: as invalid if it has measured something, else as one that never started."""
        log.error(problem)
        if self._run is not None and self._active and self._run.refuse(problem):
            gevent.spawn(self._stop_run)
            return
        self._run, self._active = None, False
        self._concluded.set()
        if self._environment.web_ui is None:
            self._environment.process_exit_code = INVALID
            gevent.spawn(self._runner.quit)
        else:
            self._clear_find_capacity()
            gevent.spawn(self._runner.stop)

    # A run continues.

    def _watch(self) -> None:
        while True:
            gevent.sleep(REPORT_INTERVAL_S)
            running = self._runner.state in {runners.STATE_SPAWNING, runners.STATE_RUNNING}
            if self._run is None or not self._active or not running:
                continue
            self._add(ALONE, self._workers.own_report())
            if self._run.tick():
                self._stop_run()

    def _stop_run(self) -> None:
        if self._environment.web_ui is None:
            gevent.spawn(self._runner.quit).join()
        else:
            gevent.spawn(self._runner.stop).join()

    def _on_worker_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        self._add(client_id, data.pop("loadtest", None))

    def _add(self, process: str, report: Mapping[str, Any] | None) -> None:
        if self._run is not None and report is not None:
            self._run.add(process, report)

    def _on_left(self, msg: Any, **_: Any) -> None:
        self._add(msg.node_id, msg.data)
        if self._run is not None and self._run.results is not None:
            self._run.results.leave(msg.node_id)
        self._runner.send_message("loadtest_acknowledged", None, msg.node_id)

    def _on_reset_stats(self, **_: Any) -> None:
        if self._run is not None:
            self._add(ALONE, self._workers.own_report())
            self._run.reset()

    # A run ends.

    def _on_test_stopping(self, **_: Any) -> None:
        if self._run is not None and self._active:
            self._run.stop()

    def _on_test_stop(self, **_: Any) -> None:
        if self._run is None or not self._active:
            return
        self._active = False
        try:
            self._add(ALONE, self._workers.own_report())
            self._run.conclude()
        finally:
            if self._scraped is not None:
                self._scraped.clear()
            self._concluded.set()
        if self._environment.web_ui is None:  # with the page, runs come and go while the process stays
            self._environment.process_exit_code = self._run.exit_code
            if not self._workers.names():
                gevent.spawn(self._runner.quit)  # all workers were lost: nobody else would end this process
        else:
            self._clear_find_capacity()

    def _clear_find_capacity(self) -> None:
        """Reset the option: the form of a plain run leaves it out, and Locust would keep the last value."""
        vars(self._environment.parsed_options)["find_capacity"] = self._defaults["find_capacity"]

    def _on_quitting(self, **_: Any) -> None:
        """End a run and write its report before Locust decides its exit code."""
        if self._run is not None:
            self._runner.stop()
            # Another greenlet may be stopping it already, because the last worker has gone.
            self._concluded.wait(_FINISH_TIMEOUT_S)
        if self._scraped is not None:
            self._scraped.wait(_LAST_SCRAPE_S)

    def _on_quit(self, **_: Any) -> None:
        if self._run is not None and self._environment.web_ui is None:
            self._run.print()
