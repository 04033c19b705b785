"""The sending side inside Locust: a run starts, is followed, reported, and stopped in this process."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any, cast

from loadtest.client.target import PATHS
from loadtest.options import read_options
from loadtest.pacing import due_requests, request_numbers
from loadtest.plan import RunPlan
from loadtest.session import Session
from loadtest.users import LanguageModelUser
from loadtest.workload import InputError

if TYPE_CHECKING:
    from locust.env import Environment

    from collections.abc import Callable, Iterator, Mapping

    from loadtest.record import RequestRecord

log = logging.getLogger(__name__)

ALONE = "local"  # the process's name where there is no master
# Numbers that differ from request to request would make every failure a kind of its own in Locust's table.
_VARYING = re.compile(r"\b(?=[0-9a-f-]*\d)[0-9a-f-]{8,}\b|\d{4,}")
# How far ahead a process that is alone sets the start of its schedule.
_LEAD_S = 0.2


class RequestFailedError(Exception):
    """A request that did not end ok, as Locust's failures show it."""


class Sender:
    """Sends this process's share of a run."""

    def __init__(self, environment: Environment, *, alone: bool, refuse: Callable[[str], None]) -> None:
        """Attach to `environment`. `alone`: there is no master; `refuse` ends a run that cannot start here."""
        self._environment = environment
        self._runner = cast("Any", environment.runner)
        self._alone = alone
        self._refuse = refuse
        self._session: Session | None = None
        self._due: Iterator[tuple[int, float]] | None = None
        hook: Any = environment.events  # untyped in Locust
        hook.test_start.add_listener(self._on_test_start)
        hook.test_stop.add_listener(self._on_test_stop)
        if not alone:
            hook.report_to_master.add_listener(self._on_report_to_master)
            self._runner.register_message("loadtest_go", self._on_go)
            self._runner.register_message("loadtest_finish", self._on_finish, concurrent=True)

    def take_report(self) -> dict[str, Any] | None:
        """Return what happened since the last call; None when no run was started."""
        return None if self._session is None else self._session.take_report()

    def _on_test_start(self, environment: Environment, **_: Any) -> None:
        if self._session is not None:
            self._session.close()
        self._session = LanguageModelUser.session = self._due = None
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
        number, processes = (0, 1) if self._alone else self._place(plan)
        session = Session(options, workload, self._tell_locust)
        pacing = options.pacing
        if pacing.arrival == "closed":
            session.take_numbers(request_numbers(pacing, number, processes))
        else:
            self._due = due_requests(pacing, workload, plan.seed, number, processes)
        LanguageModelUser.open_loop = pacing.arrival != "closed"
        self._session = LanguageModelUser.session = session
        if self._alone:
            self._go(time.time() + _LEAD_S)
        else:
            self._runner.send_message("loadtest_ready", None)

    def _place(self, plan: RunPlan) -> tuple[int, int]:
        number = plan.shards.get(self._runner.client_id)
        if number is not None:
            return number, len(plan.shards)
        log.warning("joined a run that was dealt out before: it has no share of an open-loop schedule")
        return len(plan.shards) + int(self._runner.worker_index), len(plan.shards)

    def _on_go(self, msg: Any, **_: Any) -> None:
        self._go(float(msg.data))

    def _go(self, start_at: float) -> None:
        """Start the schedule, where there is one; `start_at` is Unix time, the same for all processes."""
        if self._session is not None and self._due is not None:
            due, self._due = self._due, None
            self._session.follow(due, start_at)

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

    def _on_test_stop(self, **_: Any) -> None:
        """Locust has stopped the users; stop the schedule too, and read what came in."""
        if self._session is None:
            return
        self._session.cancel()
        if not self._session.drain():
            log.error("the last responses could not all be read in time: they are not in the results")
