"""Locust user: one connection, one request after the other."""

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

    With an open-loop schedule or a capacity search, those send: a user idles until they have ended. For a schedule it
    opens a connection ahead.
    """

    wait_time = constant(0)
    run_known: ClassVar[Event] = Event()  # set once `sender` and `idle_until` are valid
    sender: ClassVar[RequestSender | None] = None  # of the run in this process; set before users start
    idle_until: ClassVar[Event | None] = None  # set if a schedule or a search sends
    _connection: Connection | None = None

    def on_start(self) -> None:
        """Take a connection, once the run is known."""
        self.run_known.wait()
        if self.sender is not None:
            self._connection = self.sender.connect()
            if self.idle_until is not None:
                self.sender.open_ahead(self._connection)
            else:
                self.sender.users_may_send.wait()

    @task
    def request(self) -> None:
        """Send one request and wait for its end; stop the user if there is none left."""
        if self.idle_until is not None:
            self.idle_until.wait()
            raise StopUser
        if self.sender is None or self._connection is None or not self.sender.send_next(self._connection):
            raise StopUser

    def on_stop(self) -> None:
        """Close the connection, unless a schedule uses it."""
        if self._connection is not None and self.idle_until is None:
            self._connection.close()
