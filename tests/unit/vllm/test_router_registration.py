"""Joining and leaving, with a stand-in for vLLM's router 0.1.17; tests/scale has the real one."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
import router_registration
import state_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OWN, GONE = "http://localhost:8000", "http://no-such-container.invalid:8000"


class Router(ThreadingHTTPServer):
    """The router: a list of engines."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.engines: list[str] = []
        self.keys: set[str | None] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Router

    def do_GET(self) -> None:
        self._send(200, json.dumps({"urls": self.server.engines}))

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        [url] = parse_qs(parts.query)["url"]
        known = url in self.server.engines
        if parts.path == "/remove_worker":
            self.server.engines = [engine for engine in self.server.engines if engine != url]
        elif not known:
            self.server.engines.append(url)
        self._send(400 if known and parts.path == "/add_worker" else 200, "")

    def _send(self, status: int, body: str) -> None:
        self.server.keys.add(self.headers["Authorization"])
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def one() -> Iterator[Router]:
    server = Router()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Engine:
    """The engine of this container, as far as it is used."""

    def __init__(self) -> None:
        self.alive = True

    def request(self, _path: str, *, timeout_s: float) -> str:
        if not self.alive:
            raise ConnectionRefusedError(timeout_s)
        return ""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    engine = Engine()
    monkeypatch.setattr(router_registration.api_client, "request", engine.request)
    monkeypatch.setattr(state_files, "ANSWERED", tmp_path / "answered")
    state_files.ANSWERED.touch()
    monkeypatch.setattr(state_files, "STALLED", tmp_path / "stalled")
    monkeypatch.setattr(router_registration, "PERIOD_S", 0.02)
    monkeypatch.setattr(router_registration, "LAST_REQUESTS_S", 0.2)
    return engine


def joined(one: Router) -> router_registration.Registration:
    registration = router_registration.Registration(one.url, lambda _router: OWN)
    registration.join()
    return registration


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_engine_joins_after_its_warm_up(one: Router, engine: Engine) -> None:
    engine.alive = False
    state_files.ANSWERED.unlink()
    registration = joined(one)
    time.sleep(0.2)
    assert one.engines == []
    engine.alive = True
    time.sleep(0.2)
    assert one.engines == []
    state_files.ANSWERED.touch()
    until(lambda: one.engines == [OWN])
    registration.leave(await_last=False)
    assert one.engines == []


def test_engine_rejoins_restarted_router(one: Router, engine: Engine) -> None:
    assert engine
    registration = joined(one)
    until(lambda: one.engines == [OWN])
    one.engines = []
    until(lambda: one.engines == [OWN])
    registration.leave(await_last=False)


def test_leave_is_final_and_waits(one: Router, engine: Engine) -> None:
    assert engine
    registration = joined(one)
    until(lambda: one.engines == [OWN])
    begun = time.monotonic()
    registration.leave(await_last=True)
    assert time.monotonic() - begun >= 0.2
    time.sleep(0.2)
    assert one.engines == []


def test_stalled_engine_leaves_for_a_while(one: Router, engine: Engine) -> None:
    assert engine
    registration = joined(one)
    until(lambda: one.engines == [OWN])
    state_files.STALLED.write_text("no step for 120 s")
    until(lambda: one.engines == [])
    state_files.STALLED.unlink()
    until(lambda: one.engines == [OWN])
    registration.leave(await_last=False)


def test_dead_engines_are_removed(one: Router, engine: Engine) -> None:
    """One engine's name is gone; at another's address nothing listens."""
    assert engine
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as gone:
        there, ended = (f"http://127.0.0.1:{server.getsockname()[1]}" for server in (other, gone))
        one.engines = [GONE, there, ended]
        gone.close()
        registration = joined(one)
        until(lambda: sorted(one.engines) == sorted([there, OWN]))
        registration.leave(await_last=False)


def test_own_url_by_name_or_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENGINE_BY_ADDRESS", raising=False)
    assert router_registration.own_url("http://127.0.0.1:9", 8000) == f"http://{socket.gethostname()}:8000"
    monkeypatch.setenv("ENGINE_BY_ADDRESS", "1")
    assert router_registration.own_url("http://127.0.0.1:9", 8000) == "http://127.0.0.1:8000"


def test_missing_router_is_logged_once(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    assert engine
    registration = router_registration.Registration("http://127.0.0.1:1", lambda _router: OWN)
    registration.join()
    until(lambda: "cannot reach the router" in capfd.readouterr().out)
    time.sleep(0.2)
    registration.leave(await_last=True)
    assert capfd.readouterr().out.count("cannot reach") == 0


def test_router_requests_have_the_key(one: Router, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine
    monkeypatch.setenv("VLLM_API_KEY", "s3cret")
    registration = joined(one)
    until(lambda: one.engines == [OWN])
    registration.leave(await_last=False)
    assert one.keys == {"Bearer s3cret"}
