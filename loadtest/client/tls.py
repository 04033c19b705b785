"""TLS over memory buffers: the socket stays a plain one, so its receive time stamps stay usable."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAINTEXT_BYTES = 65536


class TlsChannel:
    """The TLS state of one connection; the caller moves the encrypted bytes."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)

    def handshake(self, send: Callable[[bytes], None], receive: Callable[[], bytes]) -> None:
        """Run the handshake over `send` and `receive`. Raises ssl.SSLError, an OSError, when it fails."""
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                send(self._outgoing.read())
                data = receive()
                if not data:
                    raise ssl.SSLError("the server closed the connection during the TLS handshake") from None
                self._incoming.write(data)
            else:
                send(self._outgoing.read())
                return

    def encrypt(self, data: bytes) -> bytes:
        """The bytes to send for `data`."""
        self._ssl.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """The plaintext that is complete after `data` arrived; empty when a record is still partial."""
        self._incoming.write(data)
        parts = []
        while True:
            try:
                part = self._ssl.read(_PLAINTEXT_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                break
            if not part:
                break
            parts.append(part)
        return b"".join(parts)
