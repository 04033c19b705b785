"""Event loop of the engine: one thread, epoll, a heap of due steps, kernel time stamps for arrivals.

The loop of a library would take more time per token than the client under test, and stamp late under load.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httptools

from loadtest.client.clock import ANCILLARY_SIZE, enable_kernel_stamps, kernel_stamp
from tests.rig.fault_engine import chunks
from tests.rig.fault_engine.scripts import SCRIPTS, Act, EngineRequest, Script, Step
from tests.rig.fault_engine.truth import Answer, Truth

if TYPE_CHECKING:
    from collections.abc import Callable

_LINGER_ZERO = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Settings:
    """Timing of the engine in seconds, and the fault of paths without one (`/faults/NAME/v1/...` names one)."""

    ttft: float = 0.05
    gap: float = 0.02
    fault: str = "healthy"
    models: tuple[str, ...] = ("engine",)
    max_model_len: int = 1_000_000
    api_key: str = ""
    role_at: float | None = None


@dataclass(slots=True)
class _Stream:
    """A response in progress."""

    connection: Connection
    script: Script
    answer: Answer
    step: Step


@dataclass(slots=True, eq=False)
class Connection:
    """A client's connection, and the request arriving on it."""

    sock: socket.socket
    parser: httptools.HttpRequestParser = None  # type: ignore[assignment]  # set by next_request
    url: str = ""
    authorization: str = ""
    body: list[bytes] = field(default_factory=list)
    complete: bool = False
    unsent: bytes = b""
    stream: _Stream | None = None

    def on_url(self, url: bytes) -> None:
        self.url += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization":
            self.authorization = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        self.complete = True

    def next_request(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.url, self.authorization, self.body, self.complete = "", "", [], False


class Engine:
    """Serves until `stop` is called, on `port`; 0 takes a free one."""

    def __init__(self, settings: Settings, port: int = 0, host: str = "127.0.0.1") -> None:
        self.settings = settings
        self.truth = Truth()
        self._listener = socket.create_server((host, port), backlog=4096)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._due: list[tuple[int, int, _Stream]] = []
        self._order = itertools.count()
        self._stopping = False

    def stop(self) -> None:
        """Make `serve` return after its current turn."""
        self._stopping = True

    def serve(self) -> None:
        """Run the loop."""
        listener = self._listener.fileno()
        while not self._stopping:
            wait = min(0.1, max(0.0, (self._next_due_ns() - time.time_ns()) * 1e-9))
            for descriptor, events in self._epoll.poll(wait):
                if descriptor == listener:
                    self._accept()
                    continue
                connection = self._connections.get(descriptor)
                if connection is None:
                    continue
                if events & select.EPOLLOUT:
                    self._flush(connection)
                if events & ~select.EPOLLOUT:
                    self._read(connection)
            self._run_due()
        for connection in list(self._connections.values()):
            self._close(connection)
        self._listener.close()
        self._epoll.close()

    def _next_due_ns(self) -> float:
        """Return the Unix time of the next step in nanoseconds; infinite if there is none."""
        return self._due[0][0] if self._due else math.inf

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            enable_kernel_stamps(sock)
            connection = Connection(sock)
            connection.next_request()
            self._connections[sock.fileno()] = connection
            self._epoll.register(sock, select.EPOLLIN | select.EPOLLRDHUP)

    def _read(self, connection: Connection) -> None:
        try:
            data, ancillary, _, _ = connection.sock.recvmsg(262_144, ANCILLARY_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            self._close(connection)
            return
        connection.parser.feed_data(data)
        if connection.complete:
            self._dispatch(connection, (kernel_stamp(ancillary[0][2]) if ancillary else None) or time.time_ns())

    def _dispatch(self, connection: Connection, arrived_ns: int) -> None:
        path = urlsplit(connection.url).path
        fault = self.settings.fault
        if path.startswith("/faults/"):
            _, _, fault, path = path.split("/", 3)
            path = "/" + path
        body = b"".join(connection.body)
        allowed = not self.settings.api_key or connection.authorization == f"Bearer {self.settings.api_key}"
        connection.next_request()
        if not allowed:
            self._send(connection, chunks.json_response(401, {"error": {"message": "Unauthorized"}}))
        elif path in {"/v1/chat/completions", "/v1/completions"}:
            self._begin_request(connection, "chat" if "chat" in path else "completions", body, arrived_ns, fault)
        else:
            self._send(connection, self._page(path))

    def _page(self, path: str) -> bytes:
        models = [{"id": name, "max_model_len": self.settings.max_model_len} for name in self.settings.models]
        pages: dict[str, Callable[[], object]] = {
            "/v1/models": lambda: {"object": "list", "data": models},
            "/version": lambda: {"version": "0.0.0+faults"},
            "/health": lambda: b"",
            "/metrics": self.truth.page,
            "/truth": self.truth.summary,
            "/truth/reset": self.truth.reset,
        }
        if path not in pages:
            return chunks.json_response(404, {"error": {"message": f"no {path}"}})
        return chunks.json_response(200, pages[path]())

    def _begin_request(self, connection: Connection, endpoint: str, body: bytes, arrived_ns: int, fault: str) -> None:
        wanted = json.loads(body)
        prompt = wanted["messages"] if endpoint == "chat" else wanted["prompt"]
        text = json.dumps(prompt)
        options = wanted.get("stream_options") or {}
        request = EngineRequest(
            endpoint=endpoint,
            stream=bool(wanted.get("stream")),
            include_usage=bool(options.get("include_usage")),
            prompt_tokens=len(text.split()),
            output_tokens=int(wanted.get("max_completion_tokens") or wanted.get("max_tokens") or 16),
            ttft=self.settings.ttft,
            gap=self.settings.gap,
            role_at=self.settings.role_at,
        )
        script = SCRIPTS[fault](request)
        answer = self.truth.began(arrived_ns, text.encode(), request.prompt_tokens)
        stream = _Stream(connection, script, answer, next(script))
        connection.stream = stream
        self._schedule(stream)

    def _schedule(self, stream: _Stream) -> None:
        due = stream.answer.arrived_ns + int(stream.step[0] * 1e9)
        heapq.heappush(self._due, (due, next(self._order), stream))

    def _run_due(self) -> None:
        due_steps = self._due
        now = time.time_ns()
        while due_steps and due_steps[0][0] <= now:
            due, order, stream = due_steps[0]
            connection = stream.connection
            if connection.stream is not stream:  # its client has disconnected
                heapq.heappop(due_steps)
                continue
            _, data, is_token = stream.step
            now = time.time_ns()
            if isinstance(data, Act):
                heapq.heappop(due_steps)
                self._end(stream, "abort")
                self._close(connection, reset=data is Act.RESET)
                continue
            if is_token:
                answer = stream.answer
                answer.sent_ns.append(now)
                answer.late_ns = max(answer.late_ns, now - due)
                self.truth.generation.inc()
            if data:
                self._send(connection, data)
            step = next(stream.script, None)
            if step is None:
                heapq.heappop(due_steps)
                self._end(stream, "length")
            else:
                stream.step = step
                heapq.heapreplace(due_steps, (stream.answer.arrived_ns + int(step[0] * 1e9), order, stream))

    def _end(self, stream: _Stream, reason: str) -> None:
        if stream.connection.stream is stream:
            stream.connection.stream = None
            self.truth.ended(reason)

    def _send(self, connection: Connection, data: bytes) -> None:
        if connection.unsent:
            connection.unsent += data
            return
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        if sent < len(data):
            connection.unsent = data[sent:]
            self._epoll.modify(connection.sock, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLOUT)

    def _flush(self, connection: Connection) -> None:
        data, connection.unsent = connection.unsent, b""
        self._epoll.modify(connection.sock, select.EPOLLIN | select.EPOLLRDHUP)
        if data:
            self._send(connection, data)

    def _on_disconnect(self, connection: Connection) -> None:
        """Abort the response in progress on a closed connection."""
        if connection.stream is not None:
            self._end(connection.stream, "abort")

    def _close(self, connection: Connection, *, reset: bool = False) -> None:
        if self._connections.pop(connection.sock.fileno(), None) is None:
            return
        self._on_disconnect(connection)
        if reset:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self._epoll.unregister(connection.sock)
        connection.sock.close()
