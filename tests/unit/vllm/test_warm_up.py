"""An engine is healthy, and in the router, once it has answered one request of each kind."""

from __future__ import annotations

import http.server
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import api_client
import health_check
import pytest
import state_files
import warm_up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Engine(http.server.ThreadingHTTPServer):
    """Answers with `status` of a request's body; each answer waits for `compiled`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.compiled = threading.Event()
        self.compiled.set()
        self.failures = 0
        self.refused = self.ended_by = ""
        self.refusal = 400
        self.ended = False


class Handler(http.server.BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self) -> None:
        self._answer(503 if self.server.ended else 200)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.compiled.wait(10)
        self.server.ended = self.server.ended or bool(self.server.ended_by and self.server.ended_by in body)
        if self.server.ended:
            self._answer(500)
        elif self.server.failures:
            self.server.failures -= 1
            self._answer(500)
        else:
            self._answer(self.server.refusal if self.server.refused and self.server.refused in body else 200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    server = Engine()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(api_client, "SERVER", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(warm_up, "RETRY_S", 0.01)
    for name in ("ANSWERED", "WARMING_UP", "STALLED", "ENDED_BY"):
        monkeypatch.setattr(state_files, name, tmp_path / name)
    yield server
    server.compiled.set()
    server.shutdown()
    server.server_close()


def test_each_kind_before_healthy(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    state_files.WARMING_UP.write_text("it has not answered yet")  # as the supervisor does
    assert health_check.main() == 1
    warm_up.run("m", threading.Event())
    assert "max_tokens" in engine.asked[0]
    asked = engine.asked[1:]
    assert [{**body, **fields} == body for body, fields in zip(asked, warm_up.KINDS.values(), strict=True)]
    assert {body["model"] for body in asked} == {"m"}
    assert health_check.main() == 0
    assert "warmed up in" in capsys.readouterr().out


def test_compiling_engine_is_not_asked_twice(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.compiled.clear()
    warming = threading.Thread(target=warm_up.run, args=("m", threading.Event()))
    warming.start()
    until(lambda: bool(engine.asked))
    for _ in range(3):
        assert health_check.main() == 1
    assert len(engine.asked) == 1
    assert "first token" in capsys.readouterr().out
    engine.compiled.set()
    warming.join(10)
    assert health_check.main() == 0


def test_first_answer_is_asked_for_until_it_comes(engine: Engine) -> None:
    engine.failures = 3
    warm_up.run("m", threading.Event())
    assert len(engine.asked) == 4 + len(warm_up.KINDS)
    assert state_files.ANSWERED.exists()


def test_refused_kind_is_left_out(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.refused = "response_format"
    warm_up.run("m", threading.Event())
    assert "without JSON (HTTP Error 400: Bad Request)" in capsys.readouterr().out
    assert health_check.main() == 0


def test_model_without_text_is_warm_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        api_client, "ask_for_a_token", lambda _model, *, timeout_s: api_client.request("/health", timeout_s=timeout_s)
    )
    engine.refused, engine.refusal = "prompt", 404
    warm_up.run("m", threading.Event())
    assert len(engine.asked) == 1
    assert health_check.main() == 0


def test_kind_that_ends_engines_is_asked_for_once(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.ended_by = "logprobs"
    warm_up.run("m", threading.Event())
    assert "logprobs" in engine.asked[-1]
    assert health_check.main() == 1
    # The supervisor starts another.
    engine.ended = False
    engine.asked.clear()
    warm_up.run("m", threading.Event())
    assert not any("logprobs" in body for body in engine.asked)
    assert "without log probabilities (it ended the engine" in capsys.readouterr().out
    assert health_check.main() == 0


def test_ended_engine_is_never_marked(engine: Engine) -> None:
    engine.compiled.clear()
    closed = threading.Event()
    warming = threading.Thread(target=warm_up.run, args=("m", closed))
    warming.start()
    until(lambda: bool(engine.asked))
    closed.set()
    engine.compiled.set()
    warming.join(10)
    assert not state_files.ANSWERED.exists()


def until(met: Any) -> None:
    deadline = time.monotonic() + 10
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)
