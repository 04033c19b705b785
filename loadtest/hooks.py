"""The load test inside Locust: what happens when a process starts, a run starts, reports come, and a run ends."""

from __future__ import annotations

from locust import events, runners

import itertools
import logging
import re
import sys
import time
from typing import TYPE_CHECKING, Any, cast

import gevent
from gevent.event import Event
from prometheus_client import start_http_server

from loadtest import web
from loadtest.client.target import PATHS
from loadtest.metrics import Metrics
from loadtest.options import RunOptions, add_options, read_options
from loadtest.plan import RunPlan
from loadtest.results import Results
from loadtest.session import Session
from loadtest.users import LanguageModelUser
from loadtest.workload import InputError

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.web import WebUI

    from collections.abc import Iterator, Mapping

    from loadtest.record import RequestRecord

log = logging.getLogger(__name__)

REPORT_INTERVAL_S = 1.0
FINISH_TIMEOUT_S = 60.0
BAD_INPUT = 2
# Numbers that differ from request to request would make every failure a kind of its own in Locust's table.
_VARYING = re.compile(r"\b(?=[0-9a-f-]*\d)[0-9a-f-]{8,}\b|\d{4,}")


class RequestFailedError(Exception):
    """A request that did not end ok, as Locust's failures show it."""


class LoadTest:
    """The load test in one process: the master's side, the sending side, or both."""

    def __init__(self, environment: Environment) -> None:
        """Attach to `environment`, whose runner exists already."""
        self._environment = environment
        self._runner = cast("Any", environment.runner)
        self._sends = not isinstance(environment.runner, runners.MasterRunner)
        self._collects = not isinstance(environment.runner, runners.WorkerRunner)
        self.results: Results | None = None
        self._metrics = Metrics(lambda: int(self._runner.user_count))
        self._session: Session | None = None
        self._finished: dict[str, Event] = {}
        hook: Any = environment.events  # untyped in Locust
        hook.test_start.add_listener(self._on_test_start)
        hook.test_stopping.add_listener(self._on_test_stopping)
        hook.test_stop.add_listener(self._on_test_stop)
        hook.reset_stats.add_listener(self._on_reset_stats)
        hook.report_to_master.add_listener(self._on_report_to_master)
        hook.worker_report.add_listener(self._on_worker_report)
        if not self._collects:
            self._runner.register_message("loadtest_finish", self._on_finish, concurrent=True)
        if not self._sends:
            self._runner.register_message("loadtest_finished", self._on_finished)
            self._runner.register_message("loadtest_problem", self._on_problem)
        elif self._collects:
            gevent.spawn(self._report_to_self)

    def install_web(self, web_ui: WebUI) -> None:
        """Add the load test's tab, metrics and form checks to Locust's web page."""

        def check(form: Mapping[str, Any], host: str) -> None:
            self._read({**vars(self._environment.parsed_options), **_form_values(form)}, host)

        web.install(web_ui, self._metrics.registry(), lambda: self.results, check)

    def serve_metrics(self, port: int) -> None:
        """Serve the metrics on a port of their own, where there is no web page. Raises InputError."""
        try:
            start_http_server(port, registry=self._metrics.registry())
        except (OSError, OverflowError) as error:
            raise InputError("--metrics-port", f"{port}: {error}", "give a free port") from None

    def check(self) -> None:
        """Check the options and the server now, before any worker is asked. Raises InputError."""
        self._read(vars(self._environment.parsed_options), self._environment.host or "")

    def _read(self, values: Mapping[str, Any], host: str) -> tuple[RunOptions, RunPlan]:
        options = read_options(values, host)
        plan = RunPlan.make(options, seed_given=bool(str(values["seed"]).strip()))
        plan.load_workload(options)
        return options, plan

    # A run starts: first the master's listener (or that of a process that is alone), then each worker's.

    def _on_test_start(self, environment: Environment, **_: Any) -> None:
        values = vars(environment.parsed_options)
        try:
            if self._collects:
                self._start_collecting(values)
            if self._sends:
                self._start_sending(values)
        except InputError as error:
            self._refuse(str(error))

    def _start_collecting(self, values: dict[str, Any]) -> None:
        options, plan = self._read(values, self._environment.host or "")
        if not self._sends:
            clients = self._runner.clients
            plan = plan.deal([client.id for client in clients.ready + clients.running + clients.spawning])
        # Locust sends the options to each worker with its first users.
        values["loadtest_plan"] = plan.to_wire()
        self.results = Results(options, plan)
        self._metrics.start_run(self.results)
        log.info("Run %s: model %s, seed %d", plan.run_id, plan.model, plan.seed)

    def _start_sending(self, values: Mapping[str, Any]) -> None:
        options = read_options(values, self._environment.host or "")
        plan = RunPlan.from_wire(values["loadtest_plan"])
        workload = plan.load_workload(options)
        if self._session is not None:
            self._session.close()
        self._session = Session(options, workload, self._indices(plan), self._tell_locust)
        LanguageModelUser.session = self._session

    def _indices(self, plan: RunPlan) -> Iterator[int]:
        if self._collects:
            return itertools.count()
        number = plan.shards.get(self._runner.client_id)
        if number is not None:
            return itertools.count(number, len(plan.shards))
        # It joined a run that had been dealt out already: numbers far from everybody else's.
        return itertools.count((1 + self._runner.worker_index) << 40)

    def _refuse(self, problem: str) -> None:
        """End a run that cannot start, with one line."""
        if not self._collects:
            self._runner.send_message("loadtest_problem", problem)
            return
        log.error(problem)
        self._environment.process_exit_code = BAD_INPUT
        if self._environment.web_ui is None:
            gevent.spawn(self._runner.quit)
        else:
            gevent.spawn(self._runner.stop)

    def _on_problem(self, msg: Any, **_: Any) -> None:
        self._refuse(f"worker {msg.node_id}: {msg.data}")

    def _tell_locust(self, record: RequestRecord) -> None:
        """One event per request, so that Locust's own numbers stay true; a cancelled one is no result."""
        if record.outcome == "cancelled":
            return
        path = PATHS[record.endpoint]
        failure = None
        if record.failed:
            failure = RequestFailedError(_VARYING.sub("#", f"{record.outcome.value}: {record.detail}"))
        duration = record.e2e if record.e2e is not None and failure is None else record.duration
        request_event: Any = self._environment.events.request  # untyped in Locust
        request_event.fire(
            request_type="POST",
            name=path,
            response_time=duration * 1000,
            response_length=record.response_bytes,
            exception=failure,
            context={},
            start_time=record.sent_at,
            url=path,
        )

    # Results on their way to the master.

    def _on_report_to_master(self, data: dict[str, Any], **_: Any) -> None:
        if self._session is not None:
            data["loadtest"] = self._session.take_report()

    def _on_worker_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        report = data.pop("loadtest", None)
        if report is not None:
            self._add(client_id, report)

    def _report_to_self(self) -> None:
        while True:
            gevent.sleep(REPORT_INTERVAL_S)
            if self._session is not None:
                self._add("local", self._session.take_report())

    def _add(self, process: str, report: Mapping[str, Any]) -> None:
        if self.results is not None:
            self._metrics.add(self.results.add_report(process, report))

    def _on_reset_stats(self, **_: Any) -> None:
        if self._session is not None:
            self._session.take_report()
        if self.results is not None:
            self.results.reset()

    # A run ends: the master asks the workers to stop and to hand over the rest, and waits for them.

    def _on_test_stopping(self, **_: Any) -> None:
        if self._sends or self.results is None:
            return
        clients = self._runner.clients
        alive = [client.id for client in clients.ready + clients.running + clients.spawning]
        self._finished = {client: Event() for client in alive}
        for client in alive:
            self._runner.send_message("loadtest_finish", None, client)
        deadline = time.monotonic() + FINISH_TIMEOUT_S + (self._environment.stop_timeout or 0)
        for client, event in self._finished.items():
            while not event.wait(1) and client in self._runner.clients and time.monotonic() < deadline:
                pass
        silent = [client for client, event in self._finished.items() if not event.is_set()]
        if silent:
            log.error("no last report from %s: its last requests are not in the results", ", ".join(silent))

    def _on_finish(self, **_: Any) -> None:
        self._runner.stop()
        report = None if self._session is None else self._session.take_report()
        self._runner.send_message("loadtest_finished", report)

    def _on_finished(self, msg: Any, **_: Any) -> None:
        if msg.data is not None:
            self._add(msg.node_id, msg.data)
        if msg.node_id in self._finished:
            self._finished[msg.node_id].set()

    def _on_test_stop(self, **_: Any) -> None:
        if self._session is None:
            return
        if not self._session.drain():
            log.error("the last responses could not all be read in time: they are not in the results")
        if self._collects:
            self._add("local", self._session.take_report())


def _form_values(form: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form's values as Locust will store them: tick boxes come as text."""
    return {key: {"true": True, "false": False}.get(value, value) for key, value in form.items()}


def install() -> None:
    """Hook the load test into the Locust that loads the locustfile."""
    runners.WORKER_REPORT_INTERVAL = REPORT_INTERVAL_S
    hook: Any = events  # untyped in Locust
    hook.init_command_line_parser.add_listener(add_options)
    hook.init.add_listener(_on_init)


def _on_init(environment: Environment, web_ui: WebUI | None, **_: Any) -> None:
    load_test = LoadTest(environment)
    if isinstance(environment.runner, runners.WorkerRunner):
        return
    try:
        if web_ui is not None:
            load_test.install_web(web_ui)
        else:
            options = environment.parsed_options
            assert options is not None  # noqa: S101  # for the type checker: Locust's main has parsed them
            load_test.check()
            if options.metrics_port:
                load_test.serve_metrics(options.metrics_port)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(BAD_INPUT)
