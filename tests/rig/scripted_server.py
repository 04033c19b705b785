"""A server that sends prepared bytes, for what a whole engine cannot do: answer early, never end, cut segments."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import gevent
from gevent.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# bytes to send, or seconds to wait
Part = bytes | float


@contextlib.contextmanager
def scripted_server(script: Sequence[Part], *, read_first: int | None = None, answers: int = 1) -> Iterator[str]:
    """Serve `script` to each request, in greenlets of the caller's thread; yields the server's URL.

    `read_first`: bytes of the request that are read before the answer, None for all of it. A connection is closed after
    `answers` answers.
    """

    def serve(connection: socket.socket, _address: object) -> None:
        with contextlib.suppress(OSError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(answers):
                if not _read(connection, read_first):
                    return
                for part in script:
                    if isinstance(part, float):
                        gevent.sleep(part)
                    else:
                        connection.sendall(part)

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.stop(timeout=0)


def _read(connection: socket.socket, size: int | None) -> bool:
    """Read `size` bytes, or a whole request with its Content-Length."""
    data = b""
    while size is None or len(data) < size:
        received = connection.recv(65_536 if size is None else size)
        if not received:
            return False
        data += received
        head, found, body = data.partition(b"\r\n\r\n")
        if size is None and found and len(body) >= int(head.rpartition(b"Content-Length: ")[2]):
            return True
    return True
