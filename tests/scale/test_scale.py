"""Two real engines behind the real router, with an API key, in a second clone beside a first stack.

Shared load, one address, more engines, a dead engine, fewer engines; the clone leaves nothing behind.
"""

from __future__ import annotations

import csv
import io
import json
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

import docker
import pytest

from tests.rig.running_stack import START_TIMEOUT_S, http, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.rig.running_stack import Stack

# Two engines load on the cores of one.
pytestmark = pytest.mark.timeout(1500)
RATE = 2
OUTPUT_TOKENS = 16
# Three failed health checks, each of which may wait for a name server that does not know the dead container.
OUT_WITHIN_S = 40


KEY = "a-key-of-its-own"
API = ("/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize")
NO_API = ("/invocations", "/scale_elastic_ep", "/generative_scoring", "/inference/v1/generate", "/sleep")


@pytest.fixture(scope="module")
def first(new_stack: Callable[..., Stack]) -> Stack:
    """Prometheus of a stack from this checkout, which a second clone must not disturb."""
    stack = new_stack("first")
    stack.compose("up", "-d", "--wait", "--no-deps", "prometheus")
    return stack


# Engine starts: three. One here, one more under load, one after it was killed.
@pytest.fixture(scope="module")
def scaled(new_stack: Callable[..., Stack], first: Stack, copy_of_checkout: Path) -> Stack:
    """The scale layer's stack with the first of its two engines, from a clone."""
    key = copy_of_checkout.parent / "api-key"
    key.write_text(f"{KEY}\n")
    key.chmod(0o644)  # the containers' users are not this one
    env = {"VLLM_API_KEY_FILE": str(key), "ROUTER_POLICY": "round_robin"}
    stack = new_stack("scale", copy_of_checkout, layers=("airgap", "scale"), key=KEY, **env)
    assert not set(stack.ports.values()) & set(first.ports.values())
    stack.compose("build")
    stack.compose("up", "-d", "--wait", "--wait-timeout", str(START_TIMEOUT_S), "--scale", "vllm=1")
    wait_for("the engine has joined", lambda: len(healthy(stack)) == 1, timeout_s=240)
    return stack


@pytest.fixture(scope="module")
def two(scaled: Stack) -> Stack:
    """Both engines; where no test has added the second, it is added here."""
    scaled.compose("up", "-d", "--wait", "--no-recreate")
    wait_for("both engines have joined", lambda: len(healthy(scaled)) == 2, timeout_s=240)
    return scaled


def healthy(stack: Stack) -> list[str]:
    """Return the URLs of the engines that the router sends requests to."""
    key = f"headers={{'Authorization': 'Bearer {stack.key}'}}"
    url = f"u.Request('http://127.0.0.1:8000/workers', {key})"
    ask = f"import urllib.request as u; print(u.urlopen({url}).read().decode())"
    done = stack.compose("exec", "router", "python3", "-c", ask, check=False)
    if done.returncode:
        raise OSError(done.stderr)  # it starts
    workers = json.loads(done.stdout)["workers"]
    return [worker["url"] for worker in workers if worker["is_healthy"]]


def page(stack: Stack) -> dict[str, Any]:
    """Return the statistics on Locust's page."""
    result: dict[str, Any] = json.loads(http(stack.url("LOCUST_PORT") + "/stats/requests"))
    return result


def start(stack: Stack, run_time: str) -> None:
    """Start an open loop from the page: it keeps its rate, whatever happens to the engines."""
    form = {"user_count": 1, "spawn_rate": 1, "arrival": "constant", "rate": RATE, "run_time": run_time}
    form |= {"prompt_tokens": "64", "output_tokens": str(OUTPUT_TOKENS), "host": "http://router:8000"}
    data = urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(stack.url("LOCUST_PORT") + "/swarm", data, timeout=60) as response:
        answer = json.load(response)
    assert answer["success"], answer
    wait_for("requests end", lambda: page(stack)["state"] == "running" and ended(stack) >= 3 * RATE, timeout_s=60)


def ended(stack: Stack) -> int:
    count: int = next(row for row in page(stack)["stats"] if row["name"] == "Aggregated")["num_requests"]
    return count


def reports(stack: Stack) -> set[str]:
    """Return the folders of the runs that have ended."""
    listed = stack.compose("exec", "locust", "sh", "-c", "ls /reports/*/summary.json", check=False).stdout
    return {path.rpartition("/")[0] for path in listed.split()}


def finish(stack: Stack, before: set[str], timeout_s: float = 120) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return summary and rows of the run that ended after `before`."""
    wait_for("the run's report", lambda: reports(stack) - before, timeout_s=timeout_s)
    [folder] = reports(stack) - before
    summary = json.loads(stack.compose("exec", "locust", "cat", f"{folder}/summary.json").stdout)
    rows = stack.compose("exec", "locust", "cat", f"{folder}/requests.csv").stdout
    return summary, list(csv.DictReader(io.StringIO(rows)))


def reasons(summary: dict[str, Any]) -> list[str]:
    """Return why the run is invalid, except that two engines on the same cores held up the client."""
    held_up = ("arrivals were late", "the client was the bottleneck")
    return [reason for reason in summary["verdict"]["reasons"] if not reason.startswith(held_up)]


def failed(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row for row in rows if row["outcome"] not in {"ok", "cancelled"}]


def test_added_engine_costs_no_request(scaled: Stack) -> None:
    [first] = healthy(scaled)
    before = reports(scaled)
    start(scaled, run_time="10m")
    begun = time.monotonic()
    scaled.compose("up", "-d", "--wait", "--no-recreate", ENGINES="2")
    wait_for("it has joined", lambda: len(healthy(scaled)) == 2, timeout_s=240)
    print(f"a second engine has joined after {time.monotonic() - begun:.0f} s")
    [second] = set(healthy(scaled)) - {first}
    routed = f'vllm_router_policy_decisions_total{{job="router", worker="{second}"}}'
    wait_for("it gets requests", lambda: scaled.value(routed) > 3 * RATE, timeout_s=60)
    http(scaled.url("LOCUST_PORT") + "/stop", body={})
    summary, rows = finish(scaled, before)
    assert failed(rows) == []
    assert reasons(summary) == []
    engines = summary["server"]["engines"]
    assert len(engines) == 2
    assert min(engine["requests"] for engine in engines.values()) > RATE


def test_both_engines_add_up_to_the_client(two: Stack) -> None:
    before = reports(two)
    start(two, run_time="20s")
    summary, rows = finish(two, before)
    assert reasons(summary) == []
    server = summary["server"]
    assert server["reconciled"]
    engines = server["engines"].values()
    assert len(engines) == 2
    assert min(engine["requests"] for engine in engines) >= 0.2 * len(rows)
    assert sum(engine["generation_tokens"] for engine in engines) == server["generation_tokens"]
    # What the end of the run cut off is the only thing that the engines may know better.
    cut = summary["requests"]["cancelled"]
    assert 0 <= server["generation_tokens"] - server["client_generation_tokens"] <= cut * OUTPUT_TOKENS


def test_prometheus_finds_router_and_engines(two: Stack) -> None:
    assert two.value('count(up{job="vllm"} == 1)') == 2
    assert two.value('vllm_router_active_workers{job="router"}') == 2
    assert two.value('count(vllm:generation_tokens_total{job="vllm"} > 0)') == 2


def test_api_answers_at_one_address(two: Stack) -> None:
    assert {two.chat("What is the capital of France?") for _ in range(4)} == {"The capital of France is Paris."}
    assert "8 of 8 checks passed" in two.compose("run", "--rm", "smoke").stdout


def test_engine_is_closed_without_the_key(scaled: Stack) -> None:
    """Asked beside the edge, which passes on no more than the API."""
    ask = """
import sys, urllib.error, urllib.request
for path in sys.argv[1:]:
    body = None if path in {"/v1/models", "/health", "/metrics"} else b'{"model": "m", "prompt": ""}'
    request = urllib.request.Request("http://127.0.0.1:8000" + path, body, {"Content-Type": "application/json"})
    try:
        print(path, urllib.request.urlopen(request).status)
    except urllib.error.HTTPError as error:
        print(path, error.code)
"""
    paths = (*API, *NO_API, "/health", "/metrics")
    output = scaled.compose("exec", "-T", "vllm", "python3", "-c", ask, *paths).stdout
    statuses = {path: int(status) for path, status in (line.split() for line in output.splitlines())}
    expected = dict.fromkeys(API, 401) | dict.fromkeys(NO_API, 404) | {"/health": 200, "/metrics": 200}
    assert statuses == expected


def test_key_from_a_file_stays_out_of_docker(scaled: Stack) -> None:
    assert KEY not in str([scaled.container(name).attrs for name in ("vllm", "locust")])


def test_nobody_adds_or_removes_engines(two: Stack) -> None:
    known = healthy(two)
    for path in (f"add_worker?url={known[0]}", f"remove_worker?url={known[0]}", "workers", "metrics"):
        with pytest.raises(HTTPError, match="404"):
            http(f"{two.url('VLLM_PORT')}/{path}", body={}, key=KEY)
    assert healthy(two) == known


def test_killed_engine_costs_few_requests(two: Stack) -> None:
    before = reports(two)
    start(two, run_time="10m")
    victim = two.containers("vllm")[0]
    url = f"http://{str(victim.id)[:12]}:8000"
    killed_at = time.time()
    # The whole container at once, as when its host dies: nobody tells the router.
    victim.kill()
    wait_for("the router takes it out", lambda: url not in healthy(two), timeout_s=OUT_WITHIN_S)
    out_at = time.time()
    victim.start()
    wait_for("it is back", lambda: url in healthy(two), timeout_s=600)
    routed = f'vllm_router_policy_decisions_total{{job="router", worker="{url}"}}'
    at_return = two.value(routed)
    wait_for("it gets requests again", lambda: two.value(routed) > at_return + 2, timeout_s=60)
    http(two.url("LOCUST_PORT") + "/stop", body={})
    summary, rows = finish(two, before)

    losses = failed(rows)
    # Under way on it, which ended while it was out at the latest, or sent to it until it was out.
    latency_s = summary["e2e_ms"]["p99"] / 1000 if summary["e2e_ms"]["p99"] else 5
    assert len(losses) <= RATE * (latency_s + out_at - killed_at) + 2
    assert [row for row in losses if float(row["sent_at"]) > out_at] == []
    counts = summary["requests"]
    assert len(losses) == counts["total"] - counts["ok"] - counts["cancelled"]
    [reason] = reasons(summary)
    assert "stopped or restarted during the run: what it counted is lost" in reason
    print(f"killed: {len(losses)} of {len(rows)} requests failed; out after {out_at - killed_at:.1f} s")


def test_removed_engine_costs_no_request(two: Stack) -> None:
    before = reports(two)
    start(two, run_time="10m")
    two.compose("up", "-d", "--no-recreate", "--no-deps", "--scale", "vllm=1", "vllm")
    assert len(healthy(two)) == 1
    more = ended(two) + 3 * RATE
    wait_for("the one that is left answers", lambda: ended(two) > more, timeout_s=60)
    http(two.url("LOCUST_PORT") + "/stop", body={})
    _, rows = finish(two, before)
    assert failed(rows) == []


def test_stopped_router_starts_after_a_reboot(scaled: Stack) -> None:
    scaled.compose("stop", "router")
    assert scaled.container("router").attrs["State"]["ExitCode"] == 143


def test_clone_leaves_nothing_and_first_runs_on(scaled: Stack, first: Stack) -> None:
    scaled.down()
    engine = docker.from_env()
    own: dict[str, str | list[str] | bool] = {"label": f"com.docker.compose.project={scaled.project}"}
    assert not engine.containers.list(all=True, filters=own)
    assert not engine.volumes.list(filters=own)
    assert not engine.networks.list(filters=own)
    assert first.value('up{job="prometheus"}') == 1
