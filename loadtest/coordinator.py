"""The collecting side inside Locust: plans a run, gathers the reports of all processes, and concludes."""

from __future__ import annotations

from locust import runners

import logging
import time
from typing import TYPE_CHECKING, Any, cast

import gevent
from gevent.event import Event
from prometheus_client import start_http_server

from loadtest import web
from loadtest.metrics import Metrics
from loadtest.options import RunOptions, read_options
from loadtest.plan import RunPlan
from loadtest.reconcile import reconcile
from loadtest.report.files import ReportFolder
from loadtest.report.summary import summarize
from loadtest.report.terminal import print_summary, verdict_text
from loadtest.results import Results
from loadtest.sender import ALONE
from loadtest.server import difference, read_counters, read_settled_counters
from loadtest.store import Store
from loadtest.verdict import INVALID, judge_run
from loadtest.workload import InputError, Workload

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.web import WebUI

    from collections.abc import Mapping

    from loadtest.reconcile import Reconciliation
    from loadtest.sender import Sender

log = logging.getLogger(__name__)

REPORT_INTERVAL_S = 1.0
_FINISH_TIMEOUT_S = 60.0
# Time for the message with the common start to reach every worker.
_START_LEAD_S = 0.5


class Coordinator:
    """Collects the runs of this Locust: on the master, or in the only process."""

    def __init__(self, environment: Environment) -> None:
        """Attach to `environment`, whose runner exists already."""
        self._environment = environment
        self._runner = cast("Any", environment.runner)
        self._alone = not isinstance(environment.runner, runners.MasterRunner)
        self._sender: Sender | None = None
        self.results: Results | None = None
        self.summary: dict[str, Any] | None = None
        self._workload: Workload | None = None
        self._folder: ReportFolder | None = None
        self._metrics = Metrics(lambda: int(self._runner.user_count))
        self._ready: set[str] = set()
        self._started = False
        self._finished: dict[str, Event] = {}
        hook: Any = environment.events  # untyped in Locust
        hook.test_start.add_listener(self._on_test_start)
        hook.reset_stats.add_listener(self._on_reset_stats)
        hook.quitting.add_listener(self._on_quitting)
        hook.quit.add_listener(self._on_quit)
        if not self._alone:
            hook.worker_report.add_listener(self._on_worker_report)
            hook.test_stopping.add_listener(self._on_test_stopping)
            self._runner.register_message("loadtest_ready", self._on_ready)
            self._runner.register_message("loadtest_finished", self._on_finished)
            self._runner.register_message("loadtest_problem", self._on_problem)
        gevent.spawn(self._watch)

    def listen_for_the_end(self, sender: Sender | None) -> None:
        """Conclude a run when it has stopped; call it after `sender`, where it is this process's, listens for that."""
        self._sender = sender
        hook: Any = self._environment.events  # untyped in Locust
        hook.test_stop.add_listener(self._on_test_stop)

    def install_web(self, web_ui: WebUI) -> None:
        """Add the load test's tab, metrics and form checks to Locust's web page."""

        def check(form: Mapping[str, Any], host: str) -> None:
            self._plan({**vars(self._environment.parsed_options), **form}, host)

        web.install(web_ui, self._metrics.registry(), lambda: self.results, check)

    def serve_metrics(self, port: int) -> None:
        """Serve the metrics on a port of their own, where there is no web page. Raises InputError."""
        try:
            start_http_server(port, registry=self._metrics.registry())
        except (OSError, OverflowError) as error:
            raise InputError("--metrics-port", f"{port}: {error}", "give a free port") from None

    def check(self) -> None:
        """Check the options and the server now, before any worker is asked. Raises InputError."""
        self._plan(vars(self._environment.parsed_options), self._environment.host or "")

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
        self.results = None
        try:
            self._start(values)
        except InputError as error:
            self.refuse(str(error))

    def _start(self, values: dict[str, Any]) -> None:
        options, plan, workload = self._plan(values, self._environment.host or "")
        plan = plan.deal([ALONE] if self._alone else self._workers())
        if options.report_dir is not None:
            # One run a folder: Locust's page can start many, the command line one.
            one_of_many = self._environment.web_ui is not None
            self._folder = ReportFolder(options.report_dir / plan.run_id if one_of_many else options.report_dir)
        self._workload = workload
        self.results = Results(options, plan, workload.notes, self._folder.rows if self._folder else None)
        self.results.server_before = read_counters(options.target)
        self._metrics.start_run(self.results, options.pacing.rate or 0.0)
        self._ready, self._started, self.summary = set(), False, None
        # Locust sends the options to each worker with its first users.
        values["loadtest_plan"] = plan.to_wire()
        log.info("Run %s: model %s, seed %d", plan.run_id, plan.model, plan.seed)

    def _workers(self) -> list[str]:
        clients = self._runner.clients
        return [client.id for client in clients.ready + clients.running + clients.spawning]

    def _on_ready(self, msg: Any, **_: Any) -> None:
        self._ready.add(msg.node_id)
        self._start_schedule()

    def _start_schedule(self) -> None:
        """Give all workers the same start, once each that is still there has prepared its share."""
        if self._started or self.results is None:
            return
        dealt = {name for name in self.results.plan.shards if name in self._runner.clients}
        if not dealt or not dealt <= self._ready:
            return
        self._started = True
        start_at = time.time() + _START_LEAD_S
        for name in dealt:
            self._runner.send_message("loadtest_go", start_at, name)

    def refuse(self, problem: str) -> None:
        """End a run that cannot start, with one line."""
        log.error(problem)
        self.results = None
        if self._environment.web_ui is None:
            self._environment.process_exit_code = INVALID
            gevent.spawn(self._runner.quit)
        else:
            gevent.spawn(self._runner.stop)

    def _on_problem(self, msg: Any, **_: Any) -> None:
        self.refuse(f"worker {msg.node_id}: {msg.data}")

    # A run goes on.

    def _watch(self) -> None:
        while True:
            gevent.sleep(REPORT_INTERVAL_S)
            running = self._runner.state in {runners.STATE_SPAWNING, runners.STATE_RUNNING}
            if self.results is None or not running:
                continue
            if self._sender is not None:
                self._add(ALONE, self._sender.take_report())
            else:
                self._look_for_lost_workers(self.results)
                self._start_schedule()
            if self.results.all_ended:
                log.info("All requests were sent and have ended")
                self._end_run()

    def _look_for_lost_workers(self, results: Results) -> None:
        for name in results.processes:
            client = self._runner.clients.get(name)
            if client is not None and client.state != runners.STATE_MISSING:
                continue
            lost = results.lose(name)
            if lost is not None:
                log.error(
                    "load generator %s was lost with %d requests under way: they, and what it did since its last "
                    "report, are missing in the results",
                    name,
                    lost.in_flight,
                )

    def _end_run(self) -> None:
        if self._environment.web_ui is None:
            gevent.spawn(self._runner.quit).join()
        else:
            gevent.spawn(self._runner.stop).join()

    def _on_worker_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        self._add(client_id, data.pop("loadtest", None))

    def _add(self, process: str, report: Mapping[str, Any] | None) -> None:
        if self.results is not None and report is not None:
            self._metrics.add(self.results.add_report(process, report))

    def _on_reset_stats(self, **_: Any) -> None:
        if self.results is not None:
            if self._sender is not None:
                self._add(ALONE, self._sender.take_report())
            self.results.reset()

    # A run ends: the master asks the workers to stop and to hand over the rest, waits for them, and concludes.

    def _on_test_stopping(self, **_: Any) -> None:
        if self.results is None:
            return
        self._finished = {client: Event() for client in self._workers()}
        for client in self._finished:
            self._runner.send_message("loadtest_finish", None, client)
        deadline = time.monotonic() + _FINISH_TIMEOUT_S + (self._environment.stop_timeout or 0)
        for client, event in self._finished.items():
            while not event.wait(1) and client in self._runner.clients and time.monotonic() < deadline:
                pass
            if not event.is_set():
                self.results.lose(client)

    def _on_finished(self, msg: Any, **_: Any) -> None:
        self._add(msg.node_id, msg.data)
        if msg.node_id in self._finished:
            self._finished[msg.node_id].set()

    def _on_test_stop(self, **_: Any) -> None:
        results = self.results
        if results is None or results.ended_at is not None:
            return
        if self._sender is not None:
            self._add(ALONE, self._sender.take_report())
        results.ended_at = time.time()
        results.server_after = read_settled_counters(results.options.target)
        reconciliation = self._reconcile(results)
        verdict = judge_run(results, reconciliation)
        self.summary = summarize(results, verdict, reconciliation)
        if self._environment.web_ui is None:  # with the page, runs come and go while the process stays
            self._environment.process_exit_code = verdict.exit_code
        if self._folder is not None:
            self._folder.write(self.summary, results)
            log.info("Report: %s", self._folder.path)
            self._folder = None
        log.info(verdict_text(self.summary))
        for reason in verdict.reasons:
            log.info("  %s", reason)

    def _reconcile(self, results: Results) -> Reconciliation | None:
        if results.server_before is None or results.server_after is None or self._workload is None:
            return None
        everything = Store(results.options.slo)
        everything.merge(results.measured)
        everything.merge(results.unmeasured)
        server = difference(results.server_before, results.server_after)
        common = {str(endpoint): tokens for endpoint, tokens in self._workload.common_tokens.items()}
        lost = any(process.lost_after_s is not None for process in results.processes.values())
        return reconcile(server, everything, common, lost=lost)

    def _on_quitting(self, **_: Any) -> None:
        """Locust settles its exit code after this: a run that goes on is ended first."""
        if self.results is not None and self.results.ended_at is None:
            self._runner.stop()

    def _on_quit(self, **_: Any) -> None:
        if self.summary is not None and self._environment.web_ui is None:
            print_summary(self.summary)
