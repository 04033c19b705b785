"""Run a search in a Locust that is already running, over HTTP."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import requests

from loadtest.client.access import find_ca_file
from loadtest.input_error import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_S = 90.0
_POLL_S = 1.0
# Time for which Locust may not answer, as when its container restarts, before the search counts as lost.
_LOST_AFTER_S = 60.0


class LocustPage:
    """HTTP client of the Locust at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def start(self, form: Mapping[str, str]) -> str:
        """Start a search with these values of the form and return its id. Raises InputError.

        Other values are those with which Locust was started, not those of the last run.
        """
        busy = self._status(0)
        page = self._get("/stats/requests")
        if busy["running"] or page.get("state") in {"running", "spawning"}:
            raise InputError("--locust", "a test runs there already", "stop it in Locust's page, or wait for its end")
        if page.get("workers") == []:
            raise InputError("--locust", "no worker is connected", "start one: docker compose up -d locust-worker")
        defaults = {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in self._get("/capacity/defaults").items()
            if value is not None
        }
        form = {**defaults, "user_count": "1", "spawn_rate": "1", **form}
        try:
            reply = self._send("POST", "/swarm", form).json()
        except (requests.RequestException, ValueError) as error:
            raise self._unreachable(error) from None
        if not reply.get("success"):
            raise InputError("--locust", str(reply.get("message")), "correct it")
        deadline = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline:
            status = self._status(0)
            if status["run_id"] not in {None, busy["run_id"]}:
                return str(status["run_id"])
            time.sleep(_POLL_S)
        raise InputError("--locust", "the search did not start", "see the log of the locust service")

    def follow(self, run_id: str) -> dict[str, Any]:
        """Print the search's lines as they come, and return its result. Raises InputError if it is lost."""
        seen = 0
        answered_at = time.monotonic()
        while True:
            try:
                status = self._status(seen)
            except InputError:
                if time.monotonic() - answered_at > _LOST_AFTER_S:
                    raise
                time.sleep(_POLL_S)
                continue
            answered_at = time.monotonic()
            if status["run_id"] != run_id:
                raise InputError("--locust", "the search is gone: Locust was restarted, or runs another test", "again")
            for line in status["lines"]:
                print(line, flush=True)
            seen += len(status["lines"])
            if status["summary"] is not None:
                summary: dict[str, Any] = status["summary"]
                return summary
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Stop the search. Raises InputError."""
        try:
            self._send("POST", "/stop").raise_for_status()
        except requests.RequestException as error:
            raise self._unreachable(error) from None

    def _status(self, seen: int) -> dict[str, Any]:
        return self._get(f"/capacity?from={seen}")

    def _get(self, path: str) -> dict[str, Any]:
        try:
            response = self._send("GET", path)
            response.raise_for_status()
            reply: dict[str, Any] = response.json()
        except (requests.RequestException, ValueError) as error:
            raise self._unreachable(error) from None
        return reply

    def _send(self, method: str, path: str, form: Mapping[str, str] | None = None) -> requests.Response:
        """Send one request, not through the environment's proxies. Raises requests' errors."""
        with requests.Session() as session:
            session.trust_env = False
            session.verify = find_ca_file(os.environ.get("CA_BUNDLE_FILE", ""), os.environ) or True
            return session.request(method, self._url + path, data=form, timeout=_TIMEOUT_S)

    def _unreachable(self, error: Exception) -> InputError:
        return InputError("--locust", f"{self._url} does not answer: {error}", "start it: docker compose up -d locust")
