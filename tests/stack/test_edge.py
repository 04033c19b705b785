"""The edge in front of the real stack: TLS, passwords, limits, streams as they come, and nothing beside the API."""

from __future__ import annotations

import json
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.edge_door import DOMAIN, EDGE, PASSWORD, Door, chat, login, take_away
from tests.rig.running_stack import free_ports, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.running_stack import Stack

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PAGES = ["grafana", "prometheus", "locust"]
KEY = {"Authorization": "Bearer any: the session's stack has no key, and the edge asks for one to be there"}
JSON = KEY | {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def door(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The edge alone, added to the session's stack and taken away again."""
    [port] = free_ports(1)
    env: dict[str, Any] = {
        "EDGE_DOMAIN": DOMAIN,
        "EDGE_PORT": str(port),
        "EDGE_PASSWORD": PASSWORD,
        "EDGE_MAX_BODY": "1MB",
    }
    stack.compose(*EDGE, "up", "-d", "--build", "--no-deps", "--wait", "edge", **env)
    authority = tmp_path_factory.mktemp("edge") / "root.crt"
    place = "edge:/data/caddy/pki/authorities/local/root.crt"
    wait_for(
        "the edge's authority",
        lambda: stack.compose(*EDGE, "cp", place, str(authority), check=False, **env).returncode == 0,
        timeout_s=30,
    )
    yield Door(port, authority)
    take_away(stack)


@pytest.mark.parametrize("page", PAGES)
def test_page_asks_for_the_password(door: Door, page: str) -> None:
    name = f"{page}.{DOMAIN}"
    assert door.status(name) == 401
    assert door.status(name, headers=login("wrong")) == 401
    # Grafana's image is in no package index: without it, the way is open and nobody is there.
    assert door.status(name, headers=login()) in ({502, 503} if page == "grafana" else {200, 302})


def test_actions_ask_for_the_password(door: Door) -> None:
    for page, method, path in [
        ("locust", "POST", "/swarm"),
        ("locust", "GET", "/stop"),
        ("prometheus", "POST", "/-/quit"),
        ("prometheus", "POST", "/-/reload"),
        ("prometheus", "POST", "/api/v1/admin/tsdb/snapshot"),
        ("grafana", "POST", "/api/dashboards/db"),
    ]:
        assert door.status(f"{page}.{DOMAIN}", path, method, b"") == 401, path


def test_nobody_stops_or_changes_prometheus(door: Door) -> None:
    name, let_in = f"prometheus.{DOMAIN}", login()
    assert door.status(name, "/-/quit", "POST", b"", let_in) == 403
    assert door.status(name, "/-/reload", "POST", b"", let_in) == 403
    answer = door.ask(name, "/api/v1/admin/tsdb/delete_series?match[]=up", "POST", b"", let_in)
    assert json.loads(answer.read())["error"] == "admin APIs disabled"


def test_other_site_cannot_start_a_load_test(door: Door) -> None:
    assert (
        door.status(f"locust.{DOMAIN}", "/swarm", "POST", b"user_count=1", login() | {"Origin": "https://evil.example"})
        == 403
    )


def test_only_the_api_of_the_engine(door: Door) -> None:
    assert door.status(DOMAIN, "/v1/models") == 401
    assert door.status(DOMAIN, "/v1/chat/completions", "POST", chat(MODEL, 1)) == 401
    models = json.loads(door.ask(DOMAIN, "/v1/models", headers=KEY).read())
    assert [model["id"] for model in models["data"]] == [MODEL]
    for path in ("/metrics", "/health", "/docs", "/tokenize", "/invocations", "/scale_elastic_ep", "/v1/../metrics"):
        assert door.status(DOMAIN, path, headers=KEY) == 404, path


def test_too_long_request_is_not_passed_on(door: Door) -> None:
    assert door.status(DOMAIN, "/v1/completions", "POST", b"x" * 1_100_000, KEY) == 413
    # 16 KB of heads, and the room that Go's server adds to that.
    assert door.status(DOMAIN, "/v1/models", headers=KEY | {"X-Padding": "x" * 40_000}) == 431


def test_only_its_names_and_only_tls(door: Door) -> None:
    with pytest.raises(ssl.SSLError):
        door.status("other.example")
    plain = b"GET / HTTP/1.0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as sock:
        sock.sendall(plain)
        assert b" 400 " in sock.recv(200).splitlines()[0]


def test_tokens_come_through_one_by_one(door: Door) -> None:
    answer = door.ask(DOMAIN, "/v1/chat/completions", "POST", chat(MODEL, 40), JSON)
    start, arrivals, last = time.monotonic(), [], b""
    while line := answer.readline():
        if line.startswith(b"data: {"):
            arrivals.append(time.monotonic() - start)
            last = line
    # Not one event each: where the API server comes late, it puts tokens together.
    assert json.loads(last.removeprefix(b"data: "))["usage"]["completion_tokens"] == 40
    # A buffering proxy hands all of it over at the end.
    assert arrivals[1] < arrivals[-1] / 2
    assert len({round(arrival, 3) for arrival in arrivals}) > 10


def test_lost_client_ends_its_request(door: Door, stack: Stack) -> None:
    connection = door.connect(DOMAIN)
    connection.request("POST", "/v1/chat/completions", chat(MODEL, 2000), JSON)
    connection.getresponse().readline()
    running = 'sum(vllm:num_requests_running{job="vllm"})'
    wait_for("the engine is at it", lambda: stack.value(running) > 0, timeout_s=20)
    connection.close()
    # 2000 tokens would take longer than this.
    wait_for("the engine lets go", lambda: stack.value(running) == 0, timeout_s=20)


def test_edge_is_as_closed_as_the_others(door: Door, stack: Stack) -> None:
    assert door.port
    status = stack.container("edge").exec_run(["cat", "/proc/1/status"]).output
    assert isinstance(status, bytes)
    fields = dict(line.split(":", 1) for line in status.decode().splitlines())
    assert "0" not in fields["Uid"].split()
    assert (int(fields["CapEff"], 16), int(fields["CapBnd"], 16), fields["NoNewPrivs"].strip()) == (0, 0, "1")
    for shown in (stack.container("edge").top(), stack.compose(*EDGE, "logs", "edge").stdout):
        assert PASSWORD not in str(shown)


def test_stopped_edge_ends_its_streams(door: Door, stack: Stack) -> None:
    answer = door.ask(DOMAIN, "/v1/chat/completions", "POST", chat(MODEL, 200), JSON)
    answer.readline()
    stack.compose(*EDGE, "stop", "edge")
    assert b"data: [DONE]" in answer.read()
    assert stack.container("edge").attrs["State"]["ExitCode"] == 143
