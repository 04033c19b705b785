"""The sending side inside Locust: a run starts, is followed, reported, and stopped in this process."""

from __future__ import annotations

from locust import runners

import logging
import re
import time
from typing import TYPE_CHECKING, Any, cast

from gevent.event import Event

from loadtest.client.target import PATHS
from loadtest.input_error import InputError
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

ALONE = "local"  # the process's name where there is no master
# Numbers that differ from request to request would make every failure a kind of its own in Locust's table.
_VARYING = re.compile(r"\b(?=[0-9a-f-]*\d)[0-9a-f-]{8,}\b|\d{4,}")
# For the master to say that it has this worker's last report: a process that ends does not wait for what it sent.
_HEARD_TIMEOUT_S = 5.0
# How far ahead a process that is alone sets the start of its schedule.
LEAD_S = 0.2


class RequestFailedError(Exception):
    """A request that did not end ok, as Locust's failures show it."""


class LoadWorker:
    """Sends this process's share of a run."""

    def __init__(self, environment: Environment, *, alone: bool, refuse: Callable[[str], None]) -> None:
        """Attach to `environment`. `alone`: there is no master; `refuse` ends a run that cannot start here."""
        self._environment = environment
        self._runner = cast("Any", environment.runner)
        self._alone = alone
        self._refuse = refuse
        self._session: RequestSender | None = None
        self._start: Callable[[float], None] | None = None  # what `go` does, once
        self._staged: tuple[RunOptions, RunPlan, Workload] | None = None
        self._run_id = ""
        self._load_number: int | None = None
        hook: Any = environment.events  # untyped in Locust
        hook.test_start.add_listener(self._on_test_start)
        hook.test_stop.add_listener(self._on_test_stop)
        if not alone:
            self._master_time = MasterTime(self._runner)
            self._heard = Event()
            hook.report_to_master.add_listener(self._on_report_to_master)
            hook.quitting.add_listener(self._on_quitting)
            self._runner.register_message("loadtest_go", self._on_go)
            self._runner.register_message("loadtest_begin", self._on_begin)
            self._runner.register_message("loadtest_end", self._on_end, concurrent=True)
            self._runner.register_message("loadtest_finish", self._on_finish, concurrent=True)
            self._runner.register_message("loadtest_heard", lambda **_: self._heard.set())
            # A worker is given users as soon as it has connected, which may be before anybody could listen.
            if self._runner.worker_state in {runners.STATE_SPAWNING, runners.STATE_RUNNING}:
                self._on_test_start(environment)
        LanguageModelUser.heard_of_runs.set()

    def take_report(self) -> dict[str, Any] | None:
        """Return what happened since the last call, and of which run and load; None when no run was started."""
        if self._session is None:
            return None
        return {**self._session.take_report(), "run": self._run_id, "load": self._load_number}

    @property
    def prepared(self) -> bool:
        """Whether `begin` may be called."""
        return self._staged is not None

    def _on_test_start(self, environment: Environment, **_: Any) -> None:
        self._close()
        self._staged = LanguageModelUser.session = LanguageModelUser.stay_until = None
        values = vars(environment.parsed_options)
        if "loadtest_plan" not in values:
            return  # the run was refused before it was planned
        try:
            self._prepare(values)
        except InputError as error:
            self._refuse(str(error))

    def _prepare(self, values: Mapping[str, Any]) -> None:
        options = read_options(values, self._environment.host or "")
        plan = RunPlan.from_wire(values["loadtest_plan"])
        workload = plan.load_workload(options)
        self._run_id = plan.run_id
        if options.capacity is not None:
            self._staged = options, plan, workload
            LanguageModelUser.stay_until = Event()
        else:
            self._prepare_single(options, plan, workload)
        if not self._alone:
            self._tell_ready(None)
        elif self._session is not None:
            self._session.users_may_send.set()
            self.go(time.time() + LEAD_S)

    def _prepare_single(self, options: RunOptions, plan: RunPlan, workload: Workload) -> None:
        """One load, which the users send, or a schedule."""
        number, processes = (0, 1) if self._alone else self._place(plan)
        pacing = options.pacing
        session = RequestSender(
            options,
            workload,
            self._tell_locust,
            first_measured=pacing.warmup_requests,
            keep_rows=options.report_dir is not None,
        )
        if pacing.arrival == "closed":
            session.take_numbers(request_numbers(pacing, number, processes))
        else:
            due = due_requests(pacing, workload, plan.seed, number, processes)
            self._start = lambda start_at: session.follow(due, start_at)
            LanguageModelUser.stay_until = session.ended
        self._session = LanguageModelUser.session = session

    def _place(self, plan: RunPlan) -> tuple[int, int]:
        number = plan.shards.get(self._runner.client_id)
        if number is not None:
            return number, len(plan.shards)
        log.warning("joined a run that was dealt out before: it has no share of an open-loop schedule")
        return len(plan.shards) + int(self._runner.worker_index), len(plan.shards)

    # A search: one load after the other, each in a session of its own.

    def begin(self, load: LoadSpec, number: int, processes: int) -> None:
        """Prepare this process's share of `load`; `go` starts it. Raises InputError."""
        assert self._staged is not None  # noqa: S101  # the caller looked at `prepared`
        options, _, workload = self._staged
        self._close()
        session = RequestSender(
            options, workload, self._tell_locust, first_measured=load.first_measured, keep_rows=True
        )
        if load.users:
            # A process without a user must not hold numbers: the window waits for each in turn.
            numbers = request_numbers(load.pacing, number, min(processes, load.users))
            session.take_numbers(load.first_request + request for request in numbers)
            self._start = lambda _: session.loop(load.share_of_users(number, processes), load.users_over_s)
        else:
            due = due_requests(load.pacing, workload, load.seed, number, processes)
            numbered = ((load.first_request + request, at) for request, at in due)
            self._start = lambda start_at: session.follow(numbered, start_at)
        self._session, self._load_number = session, load.number

    def end(self) -> dict[str, Any] | None:
        """Stop the load, and hand over the rest."""
        self._stop_sending()
        return self.take_report()

    def _on_begin(self, msg: Any, **_: Any) -> None:
        if self._staged is None:
            return  # the run was stopped, or refused here, in between
        try:
            self.begin(LoadSpec.from_wire(msg.data["load"]), msg.data["number"], msg.data["processes"])
        except InputError as error:
            self._refuse(str(error))
        else:
            self._tell_ready(msg.data["load"]["number"])

    def _tell_ready(self, load: int | None) -> None:
        """Set the clock before anything is sent, and the common start comes, which is the master's time.

        For each load anew: clocks drift.
        """

        def tell() -> None:
            if self._session is not None:
                self._session.users_may_send.set()
            self._runner.send_message("loadtest_ready", load)

        self._master_time.set_clock(tell, self._refuse)

    def _on_end(self, **_: Any) -> None:
        self._runner.send_message("loadtest_finished", self.end())

    # Both.

    def _on_go(self, msg: Any, **_: Any) -> None:
        self.go(float(msg.data))

    def go(self, start_at: float) -> None:
        """Start what is prepared; `start_at` is Unix time, the same for all processes."""
        start, self._start = self._start, None
        if start is not None:
            start(start_at)

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = self._start = self._load_number = None

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

    def _on_report_to_master(self, data: dict[str, Any], **_: Any) -> None:
        report = self.take_report()
        if report is not None:
            data["loadtest"] = report

    def _on_finish(self, **_: Any) -> None:
        """The master ends the run: stop, and hand over the rest."""
        self._runner.stop()
        self._runner.send_message("loadtest_finished", self.take_report())

    def _on_quitting(self, **_: Any) -> None:
        """Told to end in the middle of a run: hand over what it has, before Locust says goodbye."""
        if self._session is not None and self._runner.state in {runners.STATE_SPAWNING, runners.STATE_RUNNING}:
            # The master deals a worker's users out anew as soon as it has left, to us too if we leave second.
            LanguageModelUser.session = None
            self._runner.stop()
            self._runner.send_message("loadtest_left", self.take_report())
            if not self._heard.wait(_HEARD_TIMEOUT_S):
                log.error("the master did not answer: what this load generator did last may miss in the results")

    def _on_test_stop(self, **_: Any) -> None:
        """Locust has stopped the users; stop the schedule too, and read what came in."""
        self._staged = None
        self._stop_sending()

    def _stop_sending(self) -> None:
        if self._session is None:
            return
        self._session.cancel()
        if not self._session.drain():
            log.error("the last responses could not all be read in time: they are not in the results")
