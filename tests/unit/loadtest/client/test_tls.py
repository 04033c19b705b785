from __future__ import annotations

import select
import ssl
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from loadtest.client.connection import Connection
from loadtest.client.target import Target
from loadtest.client.tls import TlsChannel
from tests.rig.fault_engine.process import ROOT
from tests.rig.one_request import ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def tls_url(engine: str, certificate: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.rig.fault_engine.tls", str(certificate), engine.rsplit(":", 1)[1]]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def test_https_has_kernel_time_stamps(tls_url: str, certificate: Path) -> None:
    where = Target.parse(tls_url)
    assert where.tls
    connection = Connection(where, ssl.create_default_context(cafile=str(certificate)))
    records = [ask(connection, where, tokens=6) for _ in range(3)]
    connection.close()
    assert [(record.outcome, record.detail) for record in records] == [("ok", "")] * 3
    assert all(record.kernel_stamped and len(record.gaps) == 5 for record in records)
    assert connection.opened == 1


def test_session_tickets_keep_connection_usable(tls_url: str, certificate: Path) -> None:
    where = Target.parse(tls_url)
    connection = Connection(where, ssl.create_default_context(cafile=str(certificate)))
    connection.open()
    assert connection._sock is not None  # nothing else shows that the tickets have arrived
    assert select.select([connection._sock], [], [], 10)[0]
    record = ask(connection, where)
    connection.close()
    assert (record.outcome, connection.opened) == ("ok", 1)


def test_untrusted_certificate_fails_to_connect(tls_url: str) -> None:
    where = Target.parse(tls_url)
    record = ask(Connection(where, ssl.create_default_context()), where)
    assert record.outcome == "connect"
    assert "certificate" in record.detail.lower()


def test_every_record_of_a_read_is_decrypted(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    channel = TlsChannel(ssl.create_default_context(cafile=str(certificate)), "127.0.0.1")

    def receive() -> bytes:
        with suppress(ssl.SSLWantReadError):
            server.do_handshake()
        return outgoing.read()

    channel.handshake(incoming.write, receive)
    server.do_handshake()
    for part in (b"one", b"two", b"three"):
        server.write(part)
    assert channel.decrypt(outgoing.read()) == b"onetwothree"
