"""Locust user: one request after the other, in closed loop."""

from __future__ import annotations

from locust import User, task
from locust.exception import StopUser

from typing import TYPE_CHECKING, ClassVar

from gevent.event import Event

if TYPE_CHECKING:
    from loadtest.sending.closed_loop_user import ClosedLoopUser
    from loadtest.sending.request_sender import RequestSender


class LanguageModelUser(User):
    """Closed loop: sends the next request as soon as its last one has ended; after a failure it may pause.

    With an open-loop schedule or a capacity search, those send: a user idles until they have ended. For a schedule it
    opens a connection ahead.
    """

    run_known: ClassVar[Event] = Event()  # set once `sender` and `idle_until` are valid
    sender: ClassVar[RequestSender | None] = None  # of the run in this process; set before users start
    idle_until: ClassVar[Event | None] = None  # set if a schedule or a search sends
    _user: ClosedLoopUser | None = None

    def on_start(self) -> None:
        """Take a connection, once the run is known."""
        self.run_known.wait()
        if self.sender is None:
            return
        if self.idle_until is not None:
            self.sender.open_ahead(self.sender.connect())
        else:
            self._user = self.sender.add_user()
            self.sender.users_may_send.wait()

    @task
    def request(self) -> None:
        """Send one request and wait for its end; stop the user if there is none left."""
        if self.idle_until is not None:
            self.idle_until.wait()
            raise StopUser
        if self.sender is None or self._user is None or not self.sender.send_next(self._user):
            raise StopUser

    def wait_time(self) -> float:
        """Pause if need be, in here: while Locust waits between two tasks, a stop ends the user at once."""
        if self.sender is not None and self._user is not None:
            self.sender.pause(self._user)
        return 0.0

    def on_stop(self) -> None:
        """Close the user's own connection."""
        if self._user is not None:
            self._user.connection.close()
