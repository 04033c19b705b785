"""Worker: prepares, starts, reports and stops this process's share of a run inside Locust."""

from __future__ import annotations

from locust import runners

import logging
import time
from typing import TYPE_CHECKING, Any, cast

from gevent.event import Event

from loadtest.client.native_receiver import describe
from loadtest.client.own_limits import check_connections
from loadtest.input_error import InputError
from loadtest.results.failure_texts import without_varying
from loadtest.sending.clock_sync import MasterTime
from loadtest.sending.locust_user import LanguageModelUser
from loadtest.sending.pacing import LoadSpec, due_requests, request_numbers
from loadtest.sending.request_sender import RequestSender
from loadtest.settings.run_options import read_options
from loadtest.settings.run_plan import RunPlan

if TYPE_CHECKING:
    from locust.env import Environment

    from collections.abc import Callable, Mapping

    from loadtest.client.request_record import RequestRecord
    from loadtest.settings.run_options import RunOptions
    from loadtest.workload import Workload

log = logging.getLogger(__name__)

ALONE = "local"  # the process's name if there is no master
# For the master to acknowledge this worker's last report: a process that ends does not flush its messages.
_ACKNOWLEDGE_TIMEOUT_S = 5.0
# Lead time of a schedule's start in a process without a master.
LEAD_S = 0.2


class RequestFailedError(Exception):
    """A request that did not end ok, as shown among Locust's failures."""


class LoadWorker:
    """Sends this process's share of a run."""

    def __init__(self, environment: Environment, *, alone: bool, refuse: Callable[[str], None]) -> None:
        """Attach to `environment`. `alone`: there is no master. `refuse` ends a run that cannot start here."""
        self._environment = environment
        self._runner = cast("Any", environment.runner)
        self._alone = alone
        self._refuse = refuse
        self._sender: RequestSender | None = None
        self._start_prepared: Callable[[float], None] | None = None  # called by `start_load`, once
        self._prepared_run: tuple[RunOptions, RunPlan, Workload] | None = None
        self._run_id = ""
        self._paths: dict[str, str] = {}  # by endpoint
        self._load_number: int | None = None
        hook: Any = environment.events  # untyped in Locust
        hook.test_start.add_listener(self._on_test_start)
        hook.test_stop.add_listener(self._on_test_stop)
        if not alone:
            self._master_time = MasterTime(self._runner)
            self._acknowledged = Event()
            hook.report_to_master.add_listener(self._on_report_to_master)
            hook.quitting.add_listener(self._on_quitting)
            self._runner.register_message("loadtest_start", self._on_start_load)
            self._runner.register_message("loadtest_begin", self._on_begin)
            self._runner.register_message("loadtest_end", self._on_end, concurrent=True)
            self._runner.register_message("loadtest_finish", self._on_finish, concurrent=True)
            self._runner.register_message("loadtest_acknowledged", lambda **_: self._acknowledged.set())
            # Locust gives a worker users as soon as it has connected, which may be before these listeners exist.
            if self._runner.worker_state in {runners.STATE_SPAWNING, runners.STATE_RUNNING}:
                self._on_test_start(environment)
        LanguageModelUser.run_known.set()

    def take_report(self) -> dict[str, Any] | None:
        """Return the results since the last call, with their run and load; None if no run was started."""
        if self._sender is None:
            return None
        return {**self._sender.take_report(), "run": self._run_id, "load": self._load_number}

    @property
    def prepared(self) -> bool:
        """True if a search is prepared, so that `begin` may be called."""
        return self._prepared_run is not None

    def _on_test_start(self, environment: Environment, **_: Any) -> None:
        self._close_sender()
        self._prepared_run = LanguageModelUser.sender = LanguageModelUser.idle_until = None
        values = vars(environment.parsed_options)
        if "loadtest_plan" not in values:
            return  # the master refused the run before it was planned
        try:
            self._prepare(values)
        except InputError as error:
            self._refuse(str(error))

    def _prepare(self, values: Mapping[str, Any]) -> None:
        options = read_options(values, self._environment.host or "")
        plan = RunPlan.from_wire(values["loadtest_plan"])
        if options.capacity is None:  # a search has its own users, or none
            check_connections(plan.users_a_worker)
        workload = plan.load_workload(options)
        self._run_id = plan.run_id
        self._paths = {endpoint: options.target.path(endpoint) for endpoint in options.workload.endpoints}
        log.info("Receive loop: %s", describe())
        if options.capacity is not None:
            self._prepared_run = options, plan, workload
            LanguageModelUser.idle_until = Event()
        else:
            self._prepare_single(options, plan, workload)
        if not self._alone:
            self._report_ready(None)
        elif self._sender is not None:
            self._sender.users_may_send.set()
            self.start_load(time.time() + LEAD_S)

    def _prepare_single(self, options: RunOptions, plan: RunPlan, workload: Workload) -> None:
        """Prepare the run's only load, sent by the users or by a schedule."""
        number, processes = (0, 1) if self._alone else self._place(plan)
        pacing = options.pacing
        sender = RequestSender(
            options,
            workload,
            self._fire_request_event,
            first_measured=pacing.warmup_requests,
            keep_rows=options.report_dir is not None,
        )
        if pacing.arrival == "closed":
            sender.set_numbers(request_numbers(pacing, number, processes), f"{plan.seed}:{number}")
        else:
            due = due_requests(pacing, workload, plan.seed, number, processes)
            self._start_prepared = lambda start_at: sender.run_schedule(due, start_at)
            LanguageModelUser.idle_until = sender.ended
        self._sender = LanguageModelUser.sender = sender

    def _place(self, plan: RunPlan) -> tuple[int, int]:
        number = plan.shards.get(self._runner.client_id)
        if number is not None:
            return number, len(plan.shards)
        log.warning("joined a run that was dealt out before: it has no share of an open-loop schedule")
        return len(plan.shards) + int(self._runner.worker_index), len(plan.shards)

    # A search: one load after the other, each with a sender of its own.

    def begin(self, load: LoadSpec, number: int, processes: int) -> None:
        """Prepare the share of process `number` of `processes` in `load`; `start_load` starts it. Raises InputError."""
        assert self._prepared_run is not None  # noqa: S101  # the caller checked `prepared`
        options, plan, workload = self._prepared_run
        self._close_sender()
        sender = RequestSender(
            options, workload, self._fire_request_event, first_measured=load.first_measured, keep_rows=True
        )
        if load.users:
            # A process without users must hold no numbers: the measured window waits for each number in turn.
            numbers = request_numbers(load.pacing, number, min(processes, load.users))
            sender.set_numbers(
                (load.first_request + request for request in numbers), f"{plan.seed}:{load.number}:{number}"
            )
            self._start_prepared = lambda _: sender.run_users(load.share_of_users(number, processes), load.users_over_s)
        else:
            due = due_requests(load.pacing, workload, load.seed, number, processes)
            numbered = ((load.first_request + request, at) for request, at in due)
            self._start_prepared = lambda start_at: sender.run_schedule(numbered, start_at)
        self._sender, self._load_number = sender, load.number

    def end(self) -> dict[str, Any] | None:
        """Stop the load and return its last report."""
        self._stop_sending()
        return self.take_report()

    def _on_begin(self, msg: Any, **_: Any) -> None:
        if self._prepared_run is None:
            return  # the run was stopped or refused meanwhile
        try:
            self.begin(LoadSpec.from_wire(msg.data["load"]), msg.data["number"], msg.data["processes"])
        except InputError as error:
            self._refuse(str(error))
        else:
            self._report_ready(msg.data["load"]["number"])

    def _report_ready(self, load: int | None) -> None:
        """Set the clock, as clocks drift from load to load, then report ready: starts are in the master's time."""

        def report() -> None:
            if self._sender is not None:
                self._sender.users_may_send.set()
            self._runner.send_message("loadtest_ready", load)

        self._master_time.set_clock(report, self._refuse)

    def _on_end(self, **_: Any) -> None:
        self._runner.send_message("loadtest_finished", self.end())

    # Both kinds of run.

    def _on_start_load(self, msg: Any, **_: Any) -> None:
        self.start_load(float(msg.data))

    def start_load(self, start_at: float) -> None:
        """Start the prepared load at `start_at`, in Unix seconds, the same for all processes."""
        start, self._start_prepared = self._start_prepared, None
        if start is not None:
            start(start_at)

    def _close_sender(self) -> None:
        if self._sender is not None:
            self._sender.close()
        self._sender = self._start_prepared = self._load_number = None

    def _fire_request_event(self, record: RequestRecord) -> None:
        """Fire Locust's request event, so that its own statistics are right; a cancelled request is no result."""
        if record.outcome == "cancelled":
            return
        path = self._paths[record.endpoint]
        failure = None
        if record.failed:
            failure = RequestFailedError(f"{record.outcome.value}: {without_varying(record.detail)}")
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

    def _on_report_to_master(self, data: dict[str, Any], **_: Any) -> None:
        report = self.take_report()
        if report is not None:
            data["loadtest"] = report

    def _on_finish(self, **_: Any) -> None:
        """Stop the run and send the last report."""
        self._runner.stop()
        self._runner.send_message("loadtest_finished", self.take_report())

    def _on_quitting(self, **_: Any) -> None:
        """Send the last report if the process is stopped during a run, before Locust disconnects it."""
        if self._sender is not None and self._runner.state in {runners.STATE_SPAWNING, runners.STATE_RUNNING}:
            # The master deals out a worker's users as soon as it has left, to this one too if it leaves second.
            LanguageModelUser.sender = None
            self._runner.stop()
            self._runner.send_message("loadtest_left", self.take_report())
            if not self._acknowledged.wait(_ACKNOWLEDGE_TIMEOUT_S):
                log.error("the master did not answer: what this load generator did last may miss in the results")

    def _on_test_stop(self, **_: Any) -> None:
        """Stop the schedule when Locust has stopped the users, and read the remaining captures."""
        self._prepared_run = None
        self._stop_sending()

    def _stop_sending(self) -> None:
        if self._sender is None:
            return
        self._sender.cancel()
        if not self._sender.drain():
            log.error("the last responses could not all be read in time: they are not in the results")
