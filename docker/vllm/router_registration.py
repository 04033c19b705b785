"""Registers an engine with vLLM's router: joins when it can answer, leaves before it stops and when it fails.

The router resolves no name to several engines: it has fixed addresses and an API (/add_worker, /remove_worker). So each
engine adds itself, again after a restart of the router. It uses its container's name, which survives a change of
address, or in a swarm its address.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

import api_client
import state_files
from watchdog import say

if TYPE_CHECKING:
    from collections.abc import Callable

PERIOD_S = 2.0
# Of one call; /add_worker waits for the router's own check of /health.
TIMEOUT_S = 10.0
# Of a connection to another engine: the kernel accepts it, however busy that engine is.
CONNECT_S = 2.0
# Longest way of a request from the router to this engine.
LAST_REQUESTS_S = 1.0


class Registration:
    """One engine's registration with every router behind `router`, a URL such as http://router:8000."""

    def __init__(self, router: str, own: Callable[[str], str]) -> None:
        """`own` maps a router's URL to this engine's URL as seen from there."""
        parts = urllib.parse.urlsplit(router)
        self._router_host, self._router_port = parts.hostname or "", parts.port or 80
        self._own = own
        self._may_join = threading.Event()
        self._asking = threading.Lock()  # joining must not overtake leaving
        self._last_message = ""
        self._thread: threading.Thread | None = None

    def join(self) -> None:
        """Join as soon as the engine answers, and stay joined until `leave`. Does not block."""
        self._may_join.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._stay, daemon=True)
            self._thread.start()

    def leave(self, *, await_last: bool) -> None:
        """Leave every router. `await_last`: also wait for requests that are on their way here."""
        self._may_join.clear()
        try:
            with self._asking:
                for router in self._routers():
                    self._ask(router, "remove_worker", self._own(router))
        except OSError as error:
            self._log_change(f"cannot leave the router: {error}")
            return
        self._log_change("left the router")
        if await_last:
            time.sleep(LAST_REQUESTS_S)

    def _stay(self) -> None:
        while True:
            time.sleep(PERIOD_S)
            self._may_join.wait()
            try:
                if state_files.STALLED.exists():
                    self._while_allowed(self._step_back)
                elif self._answers():
                    self._while_allowed(self._look)
            except (OSError, ValueError) as error:
                self._log_change(f"cannot reach the router: {error}")

    def _answers(self) -> bool:
        """Return whether the engine is alive and warmed up."""
        try:
            api_client.request("/health", timeout_s=TIMEOUT_S)
        except OSError:
            return False  # it loads, or fails and the router's health checks notice
        return state_files.ANSWERED.exists()

    def _while_allowed(self, act: Callable[[str], None]) -> None:
        with self._asking:
            for router in self._routers():
                if self._may_join.is_set():
                    act(router)

    def _step_back(self, router: str) -> None:
        """Leave while the engine is stalled."""
        own = self._own(router)
        if own in self._known(router):
            self._ask(router, "remove_worker", own)
            self._log_change("left the router: the engine makes no progress")

    def _look(self, router: str) -> None:
        """Join `router` unless it lists us, and remove one listed engine that is gone; that one may join again."""
        own, known = self._own(router), self._known(router)
        if own not in known:
            self._ask(router, "add_worker", own)
            self._log_change(f"joined the router as {own}")
        # One per round: together the engines check the whole list within seconds.
        if others := [url for url in known if url != own]:
            other = random.choice(others)  # noqa: S311  # no secret
            if not _listens(other):
                self._ask(router, "remove_worker", other)
                self._log_change(f"took {other} off the router's list: nothing listens there")

    def _known(self, router: str) -> list[str]:
        urls: list[str] = json.loads(self._ask(router, "list_workers"))["urls"]
        return urls

    def _routers(self) -> list[str]:
        """Every address of the router. Raises OSError when there is none."""
        found = socket.getaddrinfo(self._router_host, self._router_port, socket.AF_INET, socket.SOCK_STREAM)
        return sorted({f"http://{address[0]}:{int(address[1])}" for *_, address in found})

    def _ask(self, router: str, what: str, url: str = "") -> bytes:
        """Call the router's API. Raises OSError unless it succeeds."""
        query = "?" + urllib.parse.urlencode({"url": url}) if url else ""
        headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get("VLLM_API_KEY")) else {}
        call = urllib.request.Request(  # noqa: S310  # http, as the setting says
            f"{router}/{what}{query}", method="POST" if url else "GET", headers=headers
        )
        with api_client.DIRECT.open(call, timeout=TIMEOUT_S) as answer:
            content: bytes = answer.read()
        return content

    def _log_change(self, message: str) -> None:
        """Log a message unless it repeats the last one."""
        if message != self._last_message:
            say(message)
            self._last_message = message


def own_url(router: str, port: int) -> str:
    """URL of this container as `router` reaches it: by host name, which is the container's id.

    With ENGINE_BY_ADDRESS by address: a swarm removes a task's name two seconds before it stops the task, and requests
    in between would fail.
    """
    host = socket.gethostname()
    if os.environ.get("ENGINE_BY_ADDRESS"):
        parts = urllib.parse.urlsplit(router)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
            towards.connect((parts.hostname or "", parts.port or 80))  # sends nothing
            host = towards.getsockname()[0]
    return f"http://{host}:{port}"


def _listens(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), CONNECT_S).close()
    except OSError:
        return False
    return True
