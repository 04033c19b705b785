"""ASGI middleware of the engine's API server: refuses new requests while stopping, and counts open ones.

vLLM loads it by `--middleware headroom_gate.Gate`; it has a folder of its own because that folder is on the server's
import path. Its gauges appear on the server's /metrics.

A request during a stop gets HTTP 503 at once; vLLM alone would answer 200 with an empty text. Every 503, also vLLM's
own for a full queue, gets a Retry-After, which clients such as openai's honour.

Prometheus gets no metrics before the warm-up has ended: its requests wait for compilation, and would count as users'.

A stream's status is sent with its first event. vLLM checks the queue before it answers and again after tokenizing the
prompt; if it is full only then, vLLM sends the refusal inside a stream with status 200. Here it becomes a 503.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from prometheus_client import Gauge

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# Created by the supervisor when the container stops.
STOPPING = Path("/tmp/headroom-stopping")  # noqa: S108  # the container's own tmpfs
# There from the engine's start to the end of its warm-up.
WARMING_UP = Path("/tmp/headroom-warming-up")  # noqa: S108  # as above
# A full queue has room again soon; a stopping engine returns, if at all, after a start.
RETRY_FULL_S = 5
RETRY_STOPPING_S = 30
_ERROR_EVENT = b'data: {"error"'

# "livesum": the sum over the living API servers.
IN_FLIGHT = Gauge(
    "headroom_engine_requests_in_flight",
    "Requests that the API server has begun and not ended, streams that are not read included.",
    multiprocess_mode="livesum",
)
UNANSWERED = Gauge(
    "headroom_engine_requests_unanswered",
    "Requests that have come in whole and of which no byte has been answered yet.",
    multiprocess_mode="livesum",
)
UNSCRAPED = Gauge(
    "headroom_engine_requests_unscraped",
    "Requests that have ended since Prometheus last read these metrics.",
    multiprocess_mode="livesum",
)


def _is_scrape(scope: MutableMapping[str, Any]) -> bool:
    """Return whether Prometheus, not another client, reads the metrics."""
    if scope["type"] != "http" or scope["path"] != "/metrics":
        return False
    return any(name == b"user-agent" and value.startswith(b"Prometheus") for name, value in scope["headers"])


class Gate:
    """Wraps the API server's application; only POST requests are counted or refused, and early scrapes."""

    def __init__(self, app: App) -> None:
        """Wrap `app`."""
        self._app = app
        # POSTs that have ended, and how many of them Prometheus has scraped.
        self._ended = self._scraped = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            if STOPPING.exists():  # noqa: ASYNC240  # a microsecond on a tmpfs
                await _refuse(send)
            else:
                await self._count(scope, receive, send)
            return
        if _is_scrape(scope) and WARMING_UP.exists():  # noqa: ASYNC240  # as above
            await _send_error(send, {"message": "The engine is warming up.", "code": 503}, RETRY_FULL_S)
            return
        ended = self._ended  # requests that end from now on may be missing on the page
        await self._app(scope, receive, send)
        if _is_scrape(scope):
            self._scraped = max(self._scraped, ended)
            UNSCRAPED.set(self._ended - self._scraped)

    async def _count(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        exchange = _Exchange(receive, send)
        IN_FLIGHT.inc()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            exchange.answered()
            IN_FLIGHT.dec()
            self._ended += 1
            UNSCRAPED.set(self._ended - self._scraped)


class _Exchange:
    """One request on its way in and its answer on its way out."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._received = self._waiting = self._refused = False
        self._held: Message | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        # Only a complete request: a client that sends slowly does not wait for the engine.
        if message["type"] == "http.request" and not message.get("more_body") and not self._received:
            self._received = self._waiting = True
            UNANSWERED.inc()
        return message

    def answered(self) -> None:
        """Stop counting it as unanswered: the first byte is sent, or none will be."""
        if self._waiting:
            self._waiting = False
            UNANSWERED.dec()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message)
            return
        self.answered()
        if self._held is not None:
            held, self._held = self._held, None
            if error := _first_error(message.get("body", b"")):
                self._refused = True
                await _send_error(self._send, error, RETRY_FULL_S)
            else:
                await self._send(held)
        if not self._refused:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        if _is_stream(message):
            self._held = message
            return
        if message["status"] == 503:
            message["headers"] = [*message.get("headers", ()), (b"retry-after", b"%d" % RETRY_FULL_S)]
        await self._send(message)


def _is_stream(start: Message) -> bool:
    return start["status"] == 200 and any(
        name == b"content-type" and value.startswith(b"text/event-stream") for name, value in start.get("headers", ())
    )


def _first_error(body: bytes) -> dict[str, Any] | None:
    """The error that a stream starts with, if its `code` is an HTTP error status."""
    if not body.startswith(_ERROR_EVENT):
        return None
    try:
        error = json.loads(body.split(b"\n", 1)[0].removeprefix(b"data: "))["error"]
    except (ValueError, KeyError):
        return None
    return error if isinstance(error, dict) and error.get("code") in range(400, 600) else None


async def _refuse(send: Send) -> None:
    text = "The engine is stopping and takes no new requests. Please try again later or on a different instance."
    error = {"message": text, "type": "ServiceUnavailableError", "param": None, "code": 503}
    await _send_error(send, error, RETRY_STOPPING_S)


async def _send_error(send: Send, error: dict[str, Any], retry_s: int) -> None:
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if error["code"] == 503:
        headers.append((b"retry-after", b"%d" % retry_s))
    if retry_s == RETRY_STOPPING_S:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error["code"], "headers": headers})
    await send({"type": "http.response.body", "body": body})
