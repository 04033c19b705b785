"""The Locust user: one connection, one request after the other."""

from __future__ import annotations

from locust import User, constant, task
from locust.exception import StopUser

from typing import TYPE_CHECKING, ClassVar

from gevent.event import Event

if TYPE_CHECKING:
    from loadtest.client.connection import Connection
    from loadtest.sending.request_sender import RequestSender


class LanguageModelUser(User):
    """Closed loop: sends the next request as soon as its last one has ended.

    Where something else sends, a schedule or the stages of a search, a user only stays until that has ended; for a
    schedule it opens a connection ahead.
    """

    wait_time = constant(0)
    heard_of_runs: ClassVar[Event] = Event()  # set as soon as `session` and `stay_until` can be believed
    session: ClassVar[RequestSender | None] = None  # the run in this process; set before users start
    stay_until: ClassVar[Event | None] = None  # set where something else sends
    _connection: Connection | None = None

    def on_start(self) -> None:
        """Take a connection."""
        self.heard_of_runs.wait()
        if self.session is not None:
            self._connection = self.session.connect()
            if self.stay_until is not None:
                self.session.warm(self._connection)
            else:
                self.session.users_may_send.wait()
        elif self.stay_until is None:
            raise StopUser  # this process could not start the run, and has said why

    @task
    def request(self) -> None:
        """Send one request and wait for its end."""
        if self.stay_until is not None:
            self.stay_until.wait()
            raise StopUser
        if self.session is None or self._connection is None or not self.session.send_next(self._connection):
            raise StopUser

    def on_stop(self) -> None:
        """Close the connection, unless the schedule uses it."""
        if self._connection is not None and self.stay_until is None:
            self._connection.close()
