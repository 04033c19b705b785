"""Both receive loops on the same bytes, over a pair of sockets: what they make of a response must not differ."""

from __future__ import annotations

import itertools
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import gevent
import pytest
from gevent import monkey
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.client import native_receiver
from loadtest.client.connection import READ_BYTES, Capture, Connection, End
from loadtest.client.http import Response, read_response
from loadtest.client.native_receiver import NativeReceiver
from loadtest.client.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.skipif(native_receiver.Receiver is None, reason="not built here: scripts/build-native")

_TARGET = Target.parse("http://127.0.0.1:1")
_socketpair = monkey.get_original("socket", "socketpair")
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def receiver() -> Iterator[NativeReceiver]:
    receiver = NativeReceiver(READ_BYTES)
    yield receiver
    receiver.close()


def _receive(
    receiver: NativeReceiver | None, pieces: Sequence[bytes], *, close: bool, timeout_s: float
) -> tuple[Capture, bool]:
    """Receive `pieces`, sent one by one; returns the capture, and whether the connection was kept."""
    ours, theirs = _socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    connection = Connection(_TARGET)
    connection._receiver = receiver
    connection._sock, connection._recvmsg = ours, ours.recvmsg
    connection._watcher = gevent.get_hub().loop.io(ours.fileno(), 1)
    capture = Capture(sent_ns=1)

    def run() -> None:
        with gevent.Timeout(timeout_s, exception=False):
            if receiver is not None:
                connection._receive_natively(receiver, capture)
            else:
                connection._receive(capture)

    greenlet = gevent.spawn(run)
    gevent.sleep(0)
    for piece in pieces:
        unsent = piece
        while unsent:
            with suppress(BlockingIOError):
                unsent = unsent[theirs.send(unsent) :]
            gevent.sleep(1e-6)
    if close:
        theirs.close()
    greenlet.join()
    kept = connection._sock is not None
    connection.close()
    theirs.close()
    return capture, kept


def _both(
    receiver: NativeReceiver, pieces: Sequence[bytes], *, close: bool = True, timeout_s: float = 10
) -> tuple[End, Response, bool]:
    """Receive with both loops; returns what they agree on."""
    found = []
    for loop in (receiver, None):
        capture, kept = _receive(loop, pieces, close=close, timeout_s=timeout_s)
        response = read_response(capture, lambda: None)
        whole = capture.end is End.COMPLETE
        found.append((capture.end, response.status, whole and response.headers, response.body, kept, capture.size))
        if whole:
            assert len(response.ends) == len(response.times)
            assert list(response.ends) == sorted(set(response.ends.tolist()))
            assert (response.ends[-1] if len(response.ends) else 0) == len(response.body)
    assert found[0] == found[1]
    return capture.end, response, kept


@st.composite
def _responses(draw: st.DrawFn) -> bytes:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * draw(st.integers(0, 2))
    status = draw(st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 503 Busy"]))
    fields = draw(
        st.lists(st.sampled_from([b"Connection: close", b"X:", b"Date:\t x ", b"connection: keep-alive"]), max_size=1)
    )
    parts = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
    body = b"".join(parts)
    framing = draw(st.sampled_from(["chunked", "length", "close"]))
    if framing == "chunked":
        fields.append(b"Transfer-Encoding: chunked")
        extension = draw(st.sampled_from([b"", b";a=b"]))
        trailer = draw(st.sampled_from([b"", b"T: x\r\n"]))
        body = (
            b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts) + b"0\r\n" + trailer + b"\r\n"
        )
    elif framing == "length":
        fields.append(b"Content-Length: %d" % len(body))
    return interim + b"\r\n".join([status, *fields, b"", b""]) + body


@settings(max_examples=300, deadline=None)
@given(_responses(), st.lists(st.integers(0, 400), max_size=6), st.integers(0, 3))
def test_responses_cut_anywhere_agree(receiver: NativeReceiver, response: bytes, cuts: list[int], missing: int) -> None:
    response = response[: len(response) - missing]
    edges = sorted({0, len(response), *(cut for cut in cuts if cut < len(response))})
    end, parsed, _ = _both(receiver, [response[start:stop] for start, stop in itertools.pairwise(edges)])
    if not missing:
        assert end is End.COMPLETE
        assert parsed.status in {200, 503}


@pytest.mark.parametrize(
    "response",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nA: b\n\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        _CHUNKED + b"x\r\n",
        _CHUNKED + b"fffffffffffffffff\r\n",
        _CHUNKED + b"1\r\nab\r\n",
        _CHUNKED + b"1\r\na\r\n0\r\nT: x\n\r\n",
    ],
)
def test_bytes_that_are_not_http(receiver: NativeReceiver, response: bytes) -> None:
    end, _, kept = _both(receiver, [response])
    assert end is End.GARBLED
    assert kept  # exchange() closes it


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_status_without_body_is_complete(receiver: NativeReceiver, status: bytes) -> None:
    end, response, kept = _both(receiver, [b"HTTP/1.1 " + status + b"\r\n\r\n"], close=False)
    assert (end, response.body, kept) == (End.COMPLETE, b"", True)


def test_interim_responses_are_skipped(receiver: NativeReceiver) -> None:
    early, final = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", _HEAD + b"Content-Length: 2\r\n\r\nhi"
    for pieces in ([early + final], [early, final], [early, early, final[:20], final[20:]]):
        end, response, kept = _both(receiver, pieces, close=False)
        assert (end, response.status, response.body, kept) == (End.COMPLETE, 200, b"hi", True)
        assert "link" not in response.headers


def test_second_response_ends_the_connection(receiver: NativeReceiver) -> None:
    end, response, kept = _both(receiver, [(_HEAD + b"Content-Length: 1\r\n\r\na") * 2])
    assert (end, response.body, kept) == (End.COMPLETE, b"a", False)


def test_part_of_a_response_is_kept(receiver: NativeReceiver) -> None:
    end, response, _ = _both(receiver, [_CHUNKED, b"3\r\nabc\r\n", b"5\r\nde"], close=False, timeout_s=0.3)
    assert end is End.CANCELLED
    assert (response.status, response.body) == (200, b"abcde")
    assert response.ends.tolist() == [3, 5]


def test_body_larger_than_many_reads(receiver: NativeReceiver) -> None:
    body = os.urandom(READ_BYTES * 40)
    pieces = [_HEAD + b"Content-Length: %d\r\n\r\n" % len(body)]
    pieces += [body[start : start + 50_000] for start in range(0, len(body), 50_000)]
    end, response, kept = _both(receiver, pieces, close=False)
    assert (end, kept) == (End.COMPLETE, True)
    assert response.body == body


def test_reset_connection_names_its_reason(receiver: NativeReceiver) -> None:
    listener = monkey.get_original("socket", "socket")()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    ours = monkey.get_original("socket", "socket")()
    ours.connect(listener.getsockname())
    theirs, _ = listener.accept()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    number = receiver.start(ours.fileno())
    theirs.close()
    with gevent.Timeout(5):
        receiver.wait(number)
    received = receiver.take(number, 0)
    assert os.strerror(received.error) == "Connection reset by peer"
    ours.close()
    listener.close()


def test_ended_exchange_wakes_no_other(receiver: NativeReceiver) -> None:
    """The first one that is woken ends the second, whose number is then given to a third."""
    pairs = [_socketpair() for _ in range(3)]
    numbers = [receiver.start(ours.fileno()) for ours, _ in pairs[:2]]
    for _, theirs in pairs[:2]:
        theirs.send(_HEAD + b"Content-Length: 0\r\n\r\n")
    third = []

    def first() -> None:
        receiver.wait(numbers[0])
        receiver.take(numbers[0], 0)
        receiver.take(numbers[1], 0)
        third.append(receiver.start(pairs[2][0].fileno()))
        with gevent.Timeout(0.2, exception=False):
            receiver.wait(third[0])
            third.append(-1)  # nothing was sent to it

    greenlet = gevent.spawn(first)
    greenlet.join()
    assert third[0] in numbers
    assert len(third) == 1
    assert receiver.take(third[0], 0).end == native_receiver.RUNNING
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def test_forked_process_starts_its_own_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = native_receiver.shared_receiver(READ_BYTES)
    assert mine is native_receiver.shared_receiver(READ_BYTES)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    forked = native_receiver.shared_receiver(READ_BYTES)
    assert forked is not mine
    monkeypatch.undo()
    assert forked is not None
    forked.close()


def test_many_exchanges_leave_nothing_behind(receiver: NativeReceiver) -> None:
    ours, theirs = _socketpair()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2_000):
        number = receiver.start(ours.fileno())
        theirs.send(_HEAD + b"Content-Length: 2\r\n\r\nok")
        with gevent.Timeout(5):
            receiver.wait(number)
        assert receiver.take(number, 0).body == b"ok"
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not receiver._waiting
    ours.close()
    theirs.close()
