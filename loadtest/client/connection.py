"""Keep-alive connection that captures responses: bytes and arrival times, parsing the HTTP framing only.

The event loop's callback reads the socket: no greenlet wakes for a chunk, only for the head and for a read that may be
the last. A chunk costs little more than its system call, so other streams wait little for it.
"""

from __future__ import annotations

import enum
import os
import re
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gevent
import httptools
from gevent import monkey
from gevent import socket as gsocket
from gevent.hub import Waiter

from loadtest.client import clock, native_receiver
from loadtest.client.clock import ANCILLARY_SIZE, enable_kernel_stamps, now_ns
from loadtest.client.native_receiver import AFTER_DONE_MS, Received, shared_receiver
from loadtest.client.own_limits import reached_limit
from loadtest.client.tls import TlsChannel

if TYPE_CHECKING:
    from loadtest.client.native_receiver import NativeReceiver
    from loadtest.client.target import Target

# A few chunks; small, because the kernel stamps a read with the time of its last segment.
READ_BYTES = 8192
# Every chunked body ends in CRLF CRLF (RFC 9112, 7.1); a shorter read may be a part of it.
_BODY_END = b"\r\n\r\n"
# Ends of a read with [DONE], after which some servers do not end the body: an event of JSON ends in "}".
_DONE_ENDS = (b"]\n\n\r\n", b"]\n\r\n", b"]\r\n", b"] \n\n\r\n", b"]\r\n\r\n")
_DONE = re.compile(rb"[\r\n]data: ?\[DONE\]\s*\Z")
_LONGEST_DONE = 64
_ENDS = (_BODY_END, *_DONE_ENDS)
_INTERIM = b"HTTP/1.1 1"
_READABLE = 1  # libev's EV_READ

_PlainSocket: type[socket.socket] = monkey.get_original("socket", "socket")

# Data, the kernel's stamp as ancillary data (empty: none), user time of the read in ns. A tuple of plain values: the
# garbage collector stops tracking it at its first pass, and its pauses, which delay reads, stay short.
Read = tuple[bytes, bytes, int]


class End(enum.Enum):
    """End of an exchange."""

    COMPLETE = "complete"  # the whole HTTP message arrived
    CLOSED = "closed"  # the server closed or reset the connection before that
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    CONNECT = "connect"  # no connection could be opened
    GARBLED = "garbled"  # the response is not HTTP


@dataclass(slots=True)
class Capture:
    """One exchange as it was received; times are Unix nanoseconds, 0 for an event that did not happen.

    The data is in `reads`, or in `received` if the compiled receiver read it.
    """

    sent_ns: int = 0
    ended_ns: int = 0
    reads: list[Read] = field(default_factory=list)
    received: Received | None = None
    end: End = End.CANCELLED
    detail: str = ""
    own_limit: str = ""  # why this machine, not the server, refused the connection

    @property
    def size(self) -> int:
        """Number of received bytes, including head and framing."""
        return self.received.size if self.received is not None else sum(len(read[0]) for read in self.reads)

    @property
    def looks_good(self) -> bool:
        """True for a whole response of status 2xx; what it says is not read."""
        if self.end is not End.COMPLETE:
            return False
        if self.received is not None:
            return 200 <= self.received.status < 300
        # The digit of the status is in its place unless the head came in pieces.
        return bool(self.reads) and self.reads[0][0][9:10] == b"2"


def is_interim(status: int) -> bool:
    """Return whether `status` announces a later, final response (RFC 9110, 15.2); 101 is final here."""
    return 100 <= status < 200 and status != 101


class _Framing:
    """The framing of one response, filled by the parser."""

    def __init__(self) -> None:
        self.head_read = False
        self.chunked = False
        self.until_close = True
        self.complete = False
        self.keep_alive = False
        self.parser: httptools.HttpResponseParser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> str:
        """Parse received bytes; returns why they are not HTTP, empty if they are."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.keep_alive = False
            return "" if self.complete else str(error)
        return ""

    def on_message_begin(self) -> None:
        if self.complete:
            self.keep_alive = False  # more than one response: what comes next is out of step

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        if key == b"transfer-encoding" and b"chunked" in value.lower():
            self.chunked, self.until_close = True, False
        elif key == b"content-length":
            self.until_close = False

    def on_headers_complete(self) -> None:
        self.head_read = True

    def on_message_complete(self) -> None:
        if self.complete:
            return
        if is_interim(self.parser.get_status_code()):  # the final response follows
            self.head_read, self.chunked, self.until_close = False, False, True
            return
        self.complete = True
        self.keep_alive = bool(self.parser.should_keep_alive())  # not known before


class Connection:
    """Keep-alive connection to `target`, for one greenlet at a time."""

    def __init__(self, target: Target, tls: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._tls_context = tls
        self._tls: TlsChannel | None = None
        self._sock: socket.socket | None = None
        self._watcher: Any = None
        self._waiter: Waiter[None] = Waiter()
        self._receiver: NativeReceiver | None = None
        self._recvmsg: Any = None
        unused: list[Read] = []
        self._record = unused.append
        self._wake_always = True
        self._error = ""
        self.opened = 0

    def open(self) -> None:
        """Connect unless connected. Raises OSError: refused, unreachable, unknown name, or bad certificate."""
        if self._sock is not None:
            return
        if self._receiver is None and self._tls_context is None:
            self._receiver = shared_receiver(READ_BYTES)
        connected = gsocket.create_connection((self._target.host, self._target.port))
        raw = _PlainSocket(connected.family, connected.type, connected.proto, fileno=connected.detach())
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        enable_kernel_stamps(raw)
        self._sock = raw
        self._recvmsg = raw.recvmsg
        self._watcher = gevent.get_hub().loop.io(raw.fileno(), _READABLE)
        self.opened += 1
        if self._tls_context is not None:
            channel = TlsChannel(self._tls_context, self._target.host)
            try:
                channel.handshake(self._send_plain, self._receive_plain)
            except BaseException:
                self.close()
                raise
            self._tls = channel

    def close(self) -> None:
        """Close the connection; the next exchange opens a new one."""
        if self._sock is not None:
            self._watcher.stop()
            self._watcher.close()
            self._sock.close()
            self._sock = self._tls = self._watcher = self._recvmsg = None

    def exchange(self, request: bytes, timeout_s: float, capture: Capture) -> None:
        """Send `request` and fill `capture` with the response, within `timeout_s` seconds in total.

        Failures of network and server do not raise: `capture.end` and `capture.detail` report them. An exception that
        kills the greenlet passes through and leaves `capture.end` at CANCELLED.
        """
        timer = gevent.Timeout.start_new(timeout_s)
        try:
            self._run(request, capture)
        except gevent.Timeout as timeout:
            if timeout is not timer:
                raise
            if capture.sent_ns:
                capture.end, capture.detail = End.TIMEOUT, f"no end within {timeout_s:g} s"
            else:
                capture.end, capture.detail = End.CONNECT, f"no connection within {timeout_s:g} s"
        finally:
            timer.close()
            capture.ended_ns = now_ns()
            if capture.end is not End.COMPLETE:
                self.close()

    def _run(self, request: bytes, capture: Capture) -> None:
        reused = self._still_open()
        for attempt_on_reused in (True, False) if reused else (False,):
            try:
                self.open()
            except OSError as error:
                capture.end, capture.detail = End.CONNECT, _reason(error)
                capture.own_limit = reached_limit(error)
                return
            capture.sent_ns = now_ns()
            problem = ""
            try:
                whole = self._send(request)
            except OSError as error:
                whole, problem = False, _reason(error)
            # A server may refuse a long request before it has read it; why, says its answer.
            if self._receiver is not None:
                self._receive_natively(self._receiver, capture)
            else:
                self._receive(capture)
            if not whole:
                self.close()
                if capture.end is End.CLOSED:
                    capture.detail = problem or capture.detail
            # A server may close an idle connection just as we send on it: no failure of the server, so try again.
            if not (attempt_on_reused and capture.end is End.CLOSED and not capture.size):
                return
            self.close()

    def _still_open(self) -> bool:
        """Return whether the connection is open and usable; close it if not."""
        if self._sock is None:
            return False
        try:
            while data := self._sock.recv(READ_BYTES):
                # TLS 1.3 servers send session tickets after the handshake; they answer no request.
                if self._tls is None or self._tls.decrypt(data):
                    break
        except BlockingIOError:
            return True
        except OSError:
            pass  # closed below, like a connection with unexpected data or at its end
        self.close()
        return False

    def _send(self, data: bytes) -> bool:
        """Send a request; returns False if the server answered before it was sent whole."""
        if self._tls is None:
            return self._send_until_answered(data)
        self._send_plain(self._tls.encrypt(data))
        return True

    def _send_plain(self, data: bytes) -> None:
        assert self._sock is not None  # noqa: S101  # for the type checker: open() came first
        while data:
            try:
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                gsocket.wait_write(self._sock.fileno())

    def _send_until_answered(self, data: bytes) -> bool:
        assert self._sock is not None  # noqa: S101  # for the type checker: open() came first
        while data:
            try:
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                gsocket.wait_readwrite(self._sock.fileno())
                try:
                    answer = self._sock.recv(len(_INTERIM), socket.MSG_PEEK)
                except BlockingIOError:
                    continue
                if answer != _INTERIM:
                    return False
                self._send_plain(data)  # the final response follows the whole request
                return True
        return True

    def _receive_plain(self) -> bytes:
        assert self._sock is not None  # noqa: S101  # for the type checker: open() came first
        while True:
            try:
                return self._sock.recv(READ_BYTES)
            except BlockingIOError:
                gsocket.wait_read(self._sock.fileno())

    def _receive_natively(self, receiver: NativeReceiver, capture: Capture) -> None:
        """Do the same as `_receive` with the compiled receiver."""
        assert self._sock is not None  # noqa: S101  # for the type checker: open() came first
        number = receiver.start(self._sock.fileno())
        try:
            receiver.wait(number)
        finally:
            received = capture.received = receiver.take(number, clock.offset_ns())
        if received.end == native_receiver.COMPLETE:
            capture.end = End.COMPLETE
            if not received.keep_alive:
                self.close()
        elif received.end == native_receiver.GARBLED:
            capture.end, capture.detail = End.GARBLED, f"not a valid HTTP response: {received.problem}"
        else:
            capture.end = End.CLOSED
            capture.detail = os.strerror(received.error) if received.error else "the server closed the connection"

    def _receive(self, capture: Capture) -> None:
        """Read until the message is complete, the connection ends, or the data is not HTTP."""
        framing = _Framing()
        capture.reads = []
        self._record = capture.reads.append
        self._wake_always = True
        self._error = ""
        self._waiter.clear()
        seen = 0
        last = b""
        done_by: float | None = None  # with [DONE], the answer is over; the body's end may yet come
        self._watcher.start(self._on_readable)
        try:
            while True:
                if done_by is None:
                    self._waiter.get()
                elif not self._wait_until(done_by):
                    capture.end = End.COMPLETE
                    self.close()
                    return
                self._waiter.clear()
                fresh = capture.reads[seen:]
                seen += len(fresh)
                at_end = bool(fresh) and not fresh[-1][0]
                data = b"".join([read[0] for read in fresh])
                problem = framing.feed(data)
                if problem:
                    capture.end, capture.detail = End.GARBLED, f"not a valid HTTP response: {problem}"
                    return
                if framing.complete or (at_end and not self._error and framing.head_read and framing.until_close):
                    capture.end = End.COMPLETE
                    if at_end or not framing.keep_alive:
                        self.close()
                    return
                if at_end:
                    capture.end = End.CLOSED
                    capture.detail = self._error or "the server closed the connection"
                    return
                last = (last + data)[-_LONGEST_DONE:]
                if done_by is None and _DONE.search(last):
                    done_by = time.monotonic() + AFTER_DONE_MS / 1000
                self._wake_always = not (framing.head_read and framing.chunked) or done_by is not None
        finally:
            if self._watcher is not None:
                self._watcher.stop()

    def _wait_until(self, deadline: float) -> bool:
        """Wait for a read; returns False if none came before `deadline` on the monotonic clock."""
        timer = gevent.Timeout.start_new(max(0.0, deadline - time.monotonic()))
        try:
            self._waiter.get()
        except gevent.Timeout as timeout:
            if timeout is not timer:
                raise
            return False
        finally:
            timer.close()
        return True

    def _on_readable(self) -> None:
        """Record bytes and times of one read, called by the event loop; wake the reader only if needed."""
        try:
            data, ancillary, _flags, _address = self._recvmsg(READ_BYTES, ANCILLARY_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            data, ancillary, self._error = b"", [], _reason(error)
        now = now_ns()
        if self._tls is not None and data:
            try:
                data = self._tls.decrypt(data)
            except ssl.SSLError as error:
                data, self._error = b"", _reason(error)
            else:
                if not data:
                    return
        # The stamp is the only ancillary data requested.
        self._record((data, ancillary[0][2] if ancillary else b"", now))
        if self._wake_always or len(data) <= len(_BODY_END) or data.endswith(_ENDS):
            if not data:
                self._watcher.stop()
            self._waiter.switch(None)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
