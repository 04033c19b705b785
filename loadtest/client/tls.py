"""TLS over memory buffers: the socket stays plain, so the kernel's receive stamps stay usable."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAINTEXT_BYTES = 65536


class TlsChannel:
    """TLS state of one connection; the caller moves the encrypted bytes."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)

    def handshake(self, send: Callable[[bytes], None], receive: Callable[[], bytes]) -> None:
        """Run the handshake over `send` and `receive`. Raises ssl.SSLError, an OSError, if it fails."""
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
        """Return the encrypted bytes to send for `data`."""
        self._ssl.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """Return the plaintext completed by `data`; empty while a TLS record is partial. Raises ssl.SSLError."""
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
