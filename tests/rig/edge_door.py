"""HTTPS to one of the edge's names, trusting the authority that it made."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import docker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.rig.running_stack import Stack

DOMAIN = "llm.test"
USER, PASSWORD = "headroom", "a long password of one's own"
TIMEOUT_S = 60


class _Connection(http.client.HTTPSConnection):
    """To a port of this box, under another host's name."""

    def __init__(self, name: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(name, port, timeout=TIMEOUT_S)
        self.context = context

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=self.timeout)
        self.sock = self.context.wrap_socket(plain, server_hostname=self.host)


EDGE = ("-f", "compose.edge.yaml")


def take_away(stack: Stack) -> None:
    """Remove the edge from a stack, and its volume, which the stack's own layers do not name."""
    stack.compose(*EDGE, "rm", "--stop", "--force", "edge")
    docker.from_env().volumes.get(f"{stack.project}_edge-data").remove()


@dataclass
class Door:
    """The edge of a running stack; `authority` is the certificate that its clients must trust."""

    port: int
    authority: Path

    def connect(self, name: str) -> http.client.HTTPSConnection:
        return _Connection(name, self.port, ssl.create_default_context(cafile=str(self.authority)))

    def ask(
        self,
        name: str,
        path: str = "/",
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """Send a request; return the answer's head, from which the body can be read."""
        connection = self.connect(name)
        connection.request(method, path, body, dict(headers or {}))
        return connection.getresponse()

    def status(
        self,
        name: str,
        path: str = "/",
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        return self.ask(name, path, method, body, headers).status


def login(password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()}


def chat(model: str, tokens: int) -> bytes:
    """Return a request for a stream of `tokens` tokens, with their count at its end."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "Count from one to a hundred."}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(body).encode()
