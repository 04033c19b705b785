from __future__ import annotations

import itertools
import statistics
import time

import gevent
import pytest
import requests
from gevent import monkey
from gevent import socket as gsocket
from gevent.server import StreamServer

from loadtest.client.connection import READ_BYTES, Capture, Connection, End
from loadtest.client.native_receiver import NativeReceiver
from loadtest.client.target import build_request
from tests.rig.one_request import ask, make_spec, target

pytestmark = pytest.mark.usefixtures("receive_loop")


def test_requests_share_one_connection(engine: str) -> None:
    where = target(engine)
    connection = Connection(where)
    outcomes = [ask(connection, where, tokens=2).outcome for _ in range(5)]
    connection.close()
    assert outcomes == ["ok"] * 5
    assert connection.opened == 1


def test_closed_idle_connection_is_reopened(engine: str) -> None:
    where = target(engine, "closes-after")
    connection = Connection(where)
    outcomes = [ask(connection, where, tokens=2).outcome for _ in range(3)]
    connection.close()
    assert outcomes == ["ok"] * 3
    assert connection.opened == 3


def test_connection_is_not_reused_after_a_fault(engine: str) -> None:
    where, broken = target(engine), target(engine, "stall")
    connection = Connection(where)
    assert ask(connection, broken, timeout_s=0.3).outcome == "timeout"
    assert ask(connection, where).outcome == "ok"
    connection.close()
    assert connection.opened == 2


def test_late_reads_keep_arrival_times(engine: str, receive_loop: str) -> None:
    """Delay every read: times of reads would show it, the kernel's stamps must not."""
    where = target(engine)
    connection = Connection(where)
    requests.get(f"{engine}/truth/reset", timeout=5)
    held = 0.006
    receiver, others = None, [Connection(where), Connection(where)]
    if receive_loop == "compiled":  # the event loop does not hold it up: it rests that long after each other read
        receiver = connection._receiver = NativeReceiver(READ_BYTES, nap_us=int(2 * held * 1e6), nap_from=1)
        for number, other in enumerate(others, 1):
            other._receiver = receiver
            gevent.spawn_later(0.006 * number, ask, other, where, tokens=40)
    wait_for_data = monkey.get_original("select", "select")

    def hold_up() -> None:
        while True:
            gevent.sleep(0.0001)
            if connection._sock is not None:
                wait_for_data([connection._sock], [], [], 0.2)
                end = time.perf_counter() + held
                while time.perf_counter() < end:
                    pass

    holder = gevent.spawn(hold_up)
    record = ask(connection, where, tokens=30)
    holder.kill()
    connection.close()
    if receiver is not None:
        gevent.sleep(0.5)
        receiver.close()
        for other in others:
            other.close()
    arrived, *sent = requests.get(f"{engine}/truth", timeout=5).json()["times"][0]
    assert record.outcome == "ok"
    assert record.kernel_stamped
    assert record.ttft is not None
    lag = statistics.median(record.lags) if receiver is None else max(record.lags)
    assert lag > held / 2, "the client was not held up: this test shows nothing"
    true_gaps = [(later - earlier) * 1e-9 for earlier, later in itertools.pairwise(sent)]
    errors = [abs(mine - true) for mine, true in zip(record.gaps, true_gaps, strict=True)]
    assert statistics.median(errors) < lag / 2
    assert abs(record.ttft - (sent[0] - arrived) * 1e-9) < max(record.lags) / 2


def test_killed_request_is_cancelled(engine: str) -> None:
    where = target(engine, "stall")
    connection = Connection(where)
    capture = Capture()
    request = build_request(where.head("chat"), make_spec().body)
    greenlet = gevent.spawn(connection.exchange, request, 5.0, capture)
    while not capture.sent_ns:
        gevent.sleep(0.01)
    gevent.sleep(0.3)  # three tokens come in 0.1 s
    greenlet.kill()
    assert capture.end is End.CANCELLED
    assert capture.size
    assert capture.ended_ns > capture.sent_ns > 0


@pytest.mark.parametrize("size", [1_000, 3_000_000])
def test_prompt_beyond_socket_buffer_is_sent(engine: str, size: int) -> None:
    where = target(engine)
    connection = Connection(where)
    capture = Capture()
    body = make_spec(tokens=1).body.replace(b"question", b"q" * size)
    connection.exchange(build_request(where.head("chat"), body), 10.0, capture)
    connection.close()
    assert capture.end is End.COMPLETE


def test_answer_cut_off_is_not_asked_again(engine: str) -> None:
    where, broken = target(engine), target(engine, "cut")
    connection = Connection(where)
    assert ask(connection, where).outcome == "ok"
    assert ask(connection, broken).outcome == "truncated"
    connection.close()
    assert connection.opened == 1


@pytest.mark.parametrize("last", [1, 2, 3])
def test_end_of_body_in_pieces_is_seen(last: int) -> None:
    head, body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nok\r\n0\r\n\r\n"

    def serve(sock: gsocket.socket, _address: object) -> None:
        sock.recv(65536)
        for part in (head, body[:-last], body[-last:]):
            sock.sendall(part)
            gevent.sleep(0.05)
        sock.recv(1)  # until the client closes

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    where = target(f"http://127.0.0.1:{server.server_port}")
    connection, capture = Connection(where), Capture()
    connection.exchange(build_request(where.head("chat"), b"{}"), 5.0, capture)
    connection.close()
    server.stop()
    assert capture.end is End.COMPLETE
