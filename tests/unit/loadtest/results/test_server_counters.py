"""Counters of one engine and of several behind a router, over real HTTP."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from loadtest.client.target import Target
from loadtest.input_error import InputError
from loadtest.results import server_counters
from loadtest.results.reconcile import reconcile
from loadtest.results.server_counters import (
    add_up,
    difference,
    engine_targets,
    parse_counters,
    read_counters,
    read_settled_counters,
)
from loadtest.results.totals import RunTotals
from loadtest.settings.run_options import Slo
from tests.rig.loadtest_objects import record

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = """vllm:prompt_tokens_total{{engine="0",model_name="m"}} {prompt}
vllm:generation_tokens_total{{engine="0",model_name="m"}} {generated}
vllm:num_requests_running{{engine="0",model_name="m"}} 0
vllm:request_success_total{{engine="0",finished_reason="length",model_name="m"}} {ended}
process_start_time_seconds {started}
"""


def counters(prompt: float, generated: float, ended: float, started: float = 5.0) -> server_counters.ServerCounters:
    found = parse_counters(PAGE.format(prompt=prompt, generated=generated, ended=ended, started=started))
    assert found is not None
    return found


class Engine(ThreadingHTTPServer):
    def __init__(self, address: str) -> None:
        super().__init__((address, 0), Page)
        self.page = ""
        self.answers = float("inf")  # number of requests it answers before it ends


class Page(BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self) -> None:
        self.server.answers -= 1
        self.send_response(200 if self.server.answers >= 0 else 503)
        self.end_headers()
        self.wfile.write(self.server.page.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def two() -> Iterator[tuple[Engine, Engine]]:
    engines = Engine("127.0.0.1"), Engine("127.0.0.1")
    for engine in engines:
        threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield engines
    for engine in engines:
        engine.shutdown()
        engine.server_close()


def test_pages_of_all_engines_add_up(two: tuple[Engine, Engine]) -> None:
    one, other = two
    one.page = PAGE.format(prompt=100, generated=10, ended=1, started=5)
    other.page = PAGE.format(prompt=50, generated=7, ended=2, started=6)
    urls = " ".join(f"http://127.0.0.1:{engine.server_port}" for engine in two)
    found = read_counters(Target.parse("http://127.0.0.1:1", engines=urls))
    assert found is not None
    assert (found.prompt_tokens, found.generation_tokens, found.ended) == (150, 17, {"length": 3})
    assert {name: engine.generation_tokens for name, engine in found.engines.items()} == {
        f"127.0.0.1:{one.server_port}": 10,
        f"127.0.0.1:{other.server_port}": 7,
    }


def test_stopped_engine_keeps_its_last_counters(two: tuple[Engine, Engine]) -> None:
    engine, _ = two
    # A stream still runs at the first read; the whole stack is stopping.
    engine.page = PAGE.format(prompt=100, generated=10, ended=1, started=5).replace("} 0\n", "} 1\n", 1)
    engine.answers = 1
    target = Target.parse(f"http://127.0.0.1:{engine.server_port}")
    found = read_settled_counters(target)
    assert found is not None
    assert (found.generation_tokens, found.busy) == (10, 1)
    assert read_settled_counters(target) is None


def test_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [(2, 1, 6, "", (f"10.0.0.{last}", 8000)) for last in (3, 4)]
    monkeypatch.setattr(server_counters.socket, "getaddrinfo", lambda *_: addresses)
    found = engine_targets(Target.parse("http://router:8000", "key", engines="http://vllm:8000/one/v1"))
    assert {name: engine.url(engine.root) for name, engine in found.items()} == {
        "10.0.0.3:8000": "http://10.0.0.3:8000/one",
        "10.0.0.4:8000": "http://10.0.0.4:8000/one",
    }
    assert b"key" not in b"".join(engine.get("/metrics") for engine in found.values())  # it is for the router
    # A server that is no router is addressed as its clients do.
    vllm = Target.parse("http://vllm:8000")
    assert engine_targets(vllm) == {"vllm:8000": vllm}


def test_engine_may_have_an_ipv6_address() -> None:
    found = engine_targets(Target.parse("http://router:8000", engines="http://[::1]:8001"))
    assert [(name, engine.host) for name, engine in found.items()] == [("[::1]:8001", "::1")]


def test_bad_engine_address_is_refused() -> None:
    with pytest.raises(InputError, match="ftp"):
        Target.parse("http://router:8000", engines="ftp://vllm:8000")


def test_joined_engine_counts_in_full() -> None:
    before = add_up({"a": counters(1000, 100, 10)})
    after = add_up({"a": counters(1100, 110, 11), "b": counters(50, 5, 1, started=9)})
    found = difference(before, after)
    assert (found.prompt_tokens, found.generation_tokens, found.ended, found.gone) == (150, 15, {"length": 2}, ())
    assert found.joined == 1
    assert difference(after, after).joined == 0


@pytest.mark.parametrize(
    "after",
    [
        {"b": counters(500, 50, 5)},
        {
            "a": counters(2000, 200, 20, started=99),
            "b": counters(500, 50, 5),
        },  # more than before: only the start time differs
    ],
    ids=["went", "restarted"],
)
def test_restarted_engine_is_the_only_problem(
    after: dict[str, server_counters.ServerCounters],
) -> None:
    before = add_up({"a": counters(1000, 100, 10), "b": counters(400, 40, 4)})
    found = difference(before, add_up(after))
    assert found.gone == ("a",)
    totals = RunTotals(Slo())
    totals.add(record())
    reconciled = reconcile(found, totals, {})
    assert reconciled.problems == ("engine a stopped or restarted during the run: what it counted is lost",)
