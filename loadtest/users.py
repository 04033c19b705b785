"""The Locust user: one connection, one request after the other."""

from __future__ import annotations

from locust import User, constant, task

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from loadtest.client.connection import Connection
    from loadtest.session import Session


class LanguageModelUser(User):
    """Closed loop: sends the next request as soon as its last one has ended."""

    wait_time = constant(0)
    session: ClassVar[Session | None] = None  # the run in this process; set before users start
    _connection: Connection | None = None

    def on_start(self) -> None:
        """Take a connection; it opens with the first request, before the clock of that request starts."""
        assert self.session is not None  # noqa: S101  # a process that has no session is told to start no users
        self._connection = self.session.connect()

    @task
    def request(self) -> None:
        """Send one request and wait for its end."""
        assert self.session is not None  # noqa: S101  # see on_start
        assert self._connection is not None  # noqa: S101  # see on_start
        self.session.send_next(self._connection)

    def on_stop(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
