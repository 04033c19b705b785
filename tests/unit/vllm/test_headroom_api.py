"""The engine's outermost middleware: only listed routes, and the key for them."""

from __future__ import annotations

import asyncio
from typing import Any

import headroom_api  # its folder is on the path only inside the container
import pytest

# Other routes of vLLM 0.32.0, with and without its development mode.
CLOSED = (
    *("/invocations", "/scale_elastic_ep", "/is_scaling_elastic_ep", "/generative_scoring", "/kv_event_sources"),
    *("/inference/v1/generate", "/collective_rpc", "/sleep", "/wake_up", "/reset_prefix_cache", "/server_info"),
    *("/pause", "/resume", "/update_weights", "/start_profile", "/", "/v1", "/v1x", "/healthz", "/metrics/../sleep"),
)


def status(path: str, *, key: str = "", sent: str = "", method: str = "POST", kind: str = "http") -> int:
    """HTTP status, 200 when the request reaches the wrapped server; the code of a refused websocket."""
    out: list[Any] = []

    async def server(_scope: Any, _receive: Any, send: headroom_api.Send) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        out.append(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_API_KEY", key)
        middleware = headroom_api.OnlyTheApi(server)
    headers = [(b"authorization", sent.encode())] if sent else []
    scope = {"type": kind, "method": method, "path": path, "headers": headers}
    asyncio.run(middleware(scope, receive, send))
    return int(out[0].get("status") or out[0]["code"])


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("key", ["", "s3cret"])
def test_unlisted_route_is_not_found(path: str, key: str) -> None:
    assert status(path, key=key, sent=f"Bearer {key}") == 404


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/chat/completions", "/v1/models", "/tokenize", "/detokenize", "/docs", "/version"),
        *("/v1/embeddings", "/pooling", "/classify", "/score", "/rerank", "/v2/embed", "/v2/rerank"),
    ],
)
def test_api_requires_the_key(path: str) -> None:
    assert status(path) == 200
    assert status(path, key="s3cret") == 401
    assert status(path, key="s3cret", sent="Bearer wrong") == 401
    assert status(path, key="s3cret", sent="Basic s3cret") == 401
    assert status(path, key="s3cret", sent="bearer s3cret") == 200


def test_health_and_metrics_need_no_key() -> None:
    assert {status(path, key="s3cret", method="GET") for path in ("/health", "/metrics")} == {200}


def test_preflight_needs_no_key() -> None:
    assert status("/v1/chat/completions", key="s3cret", method="OPTIONS") == 200
    assert status("/sleep", key="s3cret", method="OPTIONS") == 404


def test_websocket_is_refused() -> None:
    assert status("/v1/realtime", key="s3cret", kind="websocket") == 1008
    assert status("/sleep", kind="websocket") == 1008


def test_server_loads_the_middleware() -> None:
    import engine_settings  # noqa: PLC0415  # beside the middleware in the container

    flags = engine_settings.arguments(engine_settings.read({"MODEL_ID": "a/b"}))
    assert [flag for flag in flags if flag.startswith("--middleware")][-1] == "--middleware=headroom_api.OnlyTheApi"
