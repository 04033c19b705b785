"""The question that shows that an engine answers, for each kind of model."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.error
from typing import TYPE_CHECKING

import api_client
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAT, TEXT, POOLING = "/v1/chat/completions", "/v1/completions", "/pooling"


class Engine(http.server.ThreadingHTTPServer):
    """An API server that answers each path with a status, 404 where it has none."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses: dict[str, int] = {}
        self.asked: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Engine

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["model"] == "m"
        self.server.asked.append(self.path)
        self.send_response(self.server.statuses.get(self.path, 404))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    server = Engine()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(api_client, "SERVER", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


# Statuses of vLLM 0.32: it has the routes of the model's kind only.
@pytest.mark.parametrize(
    ("statuses", "asked"),
    [
        ({CHAT: 200, TEXT: 200}, [CHAT]),
        ({CHAT: 400, TEXT: 200}, [CHAT, TEXT]),
        ({POOLING: 200}, [CHAT, TEXT, POOLING]),
    ],
    ids=["chat", "base", "pooling"],
)
def test_each_kind_gets_its_question(engine: Engine, statuses: dict[str, int], asked: list[str]) -> None:
    engine.statuses = statuses
    api_client.ask_for_a_token("m", timeout_s=5)
    assert engine.asked == asked


def test_model_of_no_kind_is_an_error(engine: Engine) -> None:
    engine.statuses = {POOLING: 400}
    # Of this type: the watchdog must not take a refusal for a stall.
    with pytest.raises(urllib.error.HTTPError, match="400: no chat, no completion and no pooling request"):
        api_client.ask_for_a_token("m", timeout_s=5)


@pytest.mark.parametrize("path", [CHAT, POOLING])
def test_failing_engine_is_not_asked_otherwise(engine: Engine, path: str) -> None:
    engine.statuses = {path: 503}
    with pytest.raises(OSError, match="503"):
        api_client.ask_for_a_token("m", timeout_s=5)
    assert engine.asked[-1] == path
