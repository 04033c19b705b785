"""The Locust user: one connection, one request after the other."""

from __future__ import annotations

from locust import User, constant, task
from locust.exception import StopUser

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from loadtest.client.connection import Connection
    from loadtest.session import Session


class LanguageModelUser(User):
    """Closed loop: sends the next request as soon as its last one has ended.

    In open loop the schedule sends; a user then only opens a connection ahead, and stays until the schedule has ended.
    """

    wait_time = constant(0)
    session: ClassVar[Session | None] = None  # the run in this process; set before users start
    open_loop: ClassVar[bool] = False
    _connection: Connection | None = None

    def on_start(self) -> None:
        """Take a connection."""
        if self.session is None:
            raise StopUser  # this process could not start the run, and has said why
        self._connection = self.session.connect()
        if self.open_loop:
            self.session.warm(self._connection)

    @task
    def request(self) -> None:
        """Send one request and wait for its end."""
        if self.session is None or self._connection is None:
            raise StopUser
        if self.open_loop:
            self.session.ended.wait()
            raise StopUser
        if not self.session.send_next(self._connection):
            raise StopUser

    def on_stop(self) -> None:
        """Close the connection, unless the schedule uses it."""
        if self._connection is not None and not self.open_loop:
            self._connection.close()
