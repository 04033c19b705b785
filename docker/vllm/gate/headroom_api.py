"""ASGI middleware of the engine's API server: serves listed routes only, all of them with the key.

vLLM 0.32 checks its key only below /v1, /v2, /inference and /cohere. It also serves, without a key, /invocations, which
answers prompts, /scale_elastic_ep, which restarts engines, and more. Here a route that is not listed gets 404, and a
listed one requires the key if there is one.

vLLM loads it by `--middleware headroom_api.OnlyTheApi`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Without a key, for health checks and Prometheus: they reveal load, but no prompts.
OPEN = {"/health", "/metrics", "/metrics/", "/ping"}
API = {
    *("/tokenize", "/detokenize", "/version", "/load", "/docs", "/openapi.json"),
    # Of pooling models: vectors, classes, scores, the order of documents; below /v1 too where OpenAI or Jina have it.
    *("/pooling", "/classify", "/score", "/rerank", "/v2/embed", "/v2/rerank"),
}
API_FOLDERS = ("/v1/", "/static/")  # /static: the scripts of /docs


class OnlyTheApi:
    """Wraps the API server's application."""

    def __init__(self, app: App) -> None:
        """Wrap `app`; VLLM_API_KEY is the key, empty for none."""
        self._app = app
        key = os.environ.get("VLLM_API_KEY", "")
        self._digest = _digest(key.encode()) if key else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in OPEN:
            await self._app(scope, receive, send)
        elif not (path in API or path.startswith(API_FOLDERS)):
            await _refuse(scope, send, 404, f"{path} is not served: docker/vllm/gate/headroom_api.py lists what is")
        elif self._digest and scope.get("method") != "OPTIONS" and not self._has_key(scope):
            await _refuse(scope, send, 401, "the API key is missing or wrong: send it as `Authorization: Bearer KEY`")
        else:
            await self._app(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == b"authorization":
                kind, _, key = value.partition(b" ")
                return kind.lower() == b"bearer" and secrets.compare_digest(_digest(key), self._digest)
        return False


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


async def _refuse(scope: Scope, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": text[:120]})
        return
    kind = "invalid_request_error" if status == 401 else "NotFoundError"
    body = json.dumps({"error": {"message": text, "type": kind, "param": None, "code": status}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
