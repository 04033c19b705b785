"""A search in a Locust that runs already, driven over its page: so that all who look at it see the search."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import requests

from loadtest.input_error import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_S = 90.0
_STEP_S = 1.0
# Locust's page may be away for a moment, as when its container restarts; longer, and the search is lost.
_AWAY_S = 60.0


class LocustPage:
    """Locust's page at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def start(self, form: Mapping[str, str]) -> str:
        """Start a search with these values of the form; returns its id. Raises InputError.

        What is not given is as this Locust was started, not as the last run had it.
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
            answer = requests.post(f"{self._url}/swarm", data=form, timeout=_TIMEOUT_S)
            told = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise self._silent(error) from None
        if not told.get("success"):
            raise InputError("--locust", str(told.get("message")), "correct it")
        deadline = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline:
            status = self._status(0)
            if status["run_id"] not in {None, busy["run_id"]}:
                return str(status["run_id"])
            time.sleep(_STEP_S)
        raise InputError("--locust", "the search did not start", "see the log of the locust service")

    def follow(self, run_id: str) -> dict[str, Any]:
        """Print the search's lines as they come; returns its result. Raises InputError when it is lost."""
        seen = 0
        heard_at = time.monotonic()
        while True:
            try:
                status = self._status(seen)
            except InputError:
                if time.monotonic() - heard_at > _AWAY_S:
                    raise
                time.sleep(_STEP_S)
                continue
            heard_at = time.monotonic()
            if status["run_id"] != run_id:
                raise InputError("--locust", "the search is gone: Locust was restarted, or runs another test", "again")
            for line in status["lines"]:
                print(line, flush=True)
            seen += len(status["lines"])
            if status["summary"] is not None:
                summary: dict[str, Any] = status["summary"]
                return summary
            time.sleep(_STEP_S)

    def stop(self) -> None:
        """Stop what runs there. Raises InputError."""
        try:
            requests.post(f"{self._url}/stop", timeout=_TIMEOUT_S).raise_for_status()
        except requests.RequestException as error:
            raise self._silent(error) from None

    def _status(self, seen: int) -> dict[str, Any]:
        return self._get(f"/capacity?from={seen}")

    def _get(self, path: str) -> dict[str, Any]:
        try:
            answer = requests.get(f"{self._url}{path}", timeout=_TIMEOUT_S)
            answer.raise_for_status()
            told: dict[str, Any] = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise self._silent(error) from None
        return told

    def _silent(self, error: Exception) -> InputError:
        return InputError("--locust", f"{self._url} does not answer: {error}", "start it: docker compose up -d locust")
