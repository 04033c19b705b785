"""Two real engines behind the real router: shared load, one address, a dead engine, fewer engines, more engines."""

from __future__ import annotations

import csv
import io
import json
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

import pytest

from tests.rig.running_stack import START_TIMEOUT_S, http, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rig.running_stack import Stack

# Two engines load on the cores of one.
pytestmark = pytest.mark.timeout(1500)
RATE = 2
OUTPUT_TOKENS = 16
# Three failed health checks, each of which may wait for a name server that does not know the dead container.
OUT_WITHIN_S = 40


@pytest.fixture(scope="module")
def scaled(new_stack: Callable[..., Stack]) -> Iterator[Stack]:
    stack = new_stack("scale", layers=("airgap", "scale"), ROUTER_POLICY="round_robin")
    stack.compose("build")
    stack.compose("up", "-d", "--wait", "--wait-timeout", str(START_TIMEOUT_S))
    wait_for("both engines have joined", lambda: len(healthy(stack)) == 2, timeout_s=240)
    yield stack
    # Two engines' memory and CPU time are for the other tests again.
    stack.down()


def healthy(stack: Stack) -> list[str]:
    """URLs of the engines that the router sends requests to."""
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/workers').read().decode())"
    done = stack.compose("exec", "router", "python3", "-c", ask, check=False)
    if done.returncode:
        raise OSError(done.stderr)  # it starts
    workers = json.loads(done.stdout)["workers"]
    return [worker["url"] for worker in workers if worker["is_healthy"]]


def page(stack: Stack) -> dict[str, Any]:
    """What Locust's page shows."""
    result: dict[str, Any] = json.loads(http(stack.url("LOCUST_PORT") + "/stats/requests"))
    return result


def start(stack: Stack, run_time: str) -> None:
    """Start an open loop from the page: it goes on at its rate, whatever becomes of the engines."""
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
    """Folders of the runs that have ended."""
    listed = stack.compose("exec", "locust", "sh", "-c", "ls /reports/*/summary.json", check=False).stdout
    return {path.rpartition("/")[0] for path in listed.split()}


def finish(stack: Stack, before: set[str], timeout_s: float = 120) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Summary and rows of the run that ended after `before`."""
    wait_for("the run's report", lambda: reports(stack) - before, timeout_s=timeout_s)
    [folder] = reports(stack) - before
    summary = json.loads(stack.compose("exec", "locust", "cat", f"{folder}/summary.json").stdout)
    rows = stack.compose("exec", "locust", "cat", f"{folder}/requests.csv").stdout
    return summary, list(csv.DictReader(io.StringIO(rows)))


def reasons(summary: dict[str, Any]) -> list[str]:
    """Why the run is invalid, but for a client that two engines on the same cores held up."""
    held_up = ("arrivals were late", "the client was the bottleneck")
    return [reason for reason in summary["verdict"]["reasons"] if not reason.startswith(held_up)]


def failed(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row for row in rows if row["outcome"] not in {"ok", "cancelled"}]


def test_both_engines_work_and_their_sum_is_what_the_client_counted(scaled: Stack) -> None:
    before = reports(scaled)
    start(scaled, run_time="20s")
    summary, rows = finish(scaled, before)
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


def test_prometheus_finds_router_and_engines_by_itself(scaled: Stack) -> None:
    assert scaled.value('count(up{job="vllm"} == 1)') == 2
    assert scaled.value('vllm_router_active_workers{job="router"}') == 2
    assert scaled.value('count(vllm:generation_tokens_total{job="vllm"} > 0)') == 2


def test_the_api_answers_at_the_one_address(scaled: Stack) -> None:
    assert {scaled.chat("What is the capital of France?") for _ in range(4)} == {"The capital of France is Paris."}
    done = scaled.compose("run", "--rm", "smoke")
    assert done.returncode == 0


def test_nobody_on_this_box_adds_or_removes_engines(scaled: Stack) -> None:
    known = healthy(scaled)
    for path in (f"add_worker?url={known[0]}", f"remove_worker?url={known[0]}", "workers", "metrics"):
        with pytest.raises(HTTPError, match="404"):
            http(f"{scaled.url('VLLM_PORT')}/{path}", body={})
    assert healthy(scaled) == known


def test_an_engine_killed_in_a_run_costs_few_requests_and_comes_back(scaled: Stack) -> None:
    before = reports(scaled)
    start(scaled, run_time="10m")
    victim = scaled.containers("vllm")[0]
    url = f"http://{str(victim.id)[:12]}:8000"
    killed_at = time.time()
    # The whole container at once, as when its host dies: nobody tells the router.
    victim.kill()
    wait_for("the router takes it out", lambda: url not in healthy(scaled), timeout_s=OUT_WITHIN_S)
    out_at = time.time()
    victim.start()
    wait_for("it is back", lambda: url in healthy(scaled), timeout_s=600)
    routed = f'vllm_router_policy_decisions_total{{job="router", worker="{url}"}}'
    at_return = scaled.value(routed)
    wait_for("it gets requests again", lambda: scaled.value(routed) > at_return + 2, timeout_s=60)
    http(scaled.url("LOCUST_PORT") + "/stop", body={})
    summary, rows = finish(scaled, before)

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


def test_fewer_engines_cost_no_request(scaled: Stack) -> None:
    before = reports(scaled)
    start(scaled, run_time="10m")
    scaled.compose("up", "-d", "--no-recreate", "--no-deps", "--scale", "vllm=1", "vllm")
    assert len(healthy(scaled)) == 1
    more = ended(scaled) + 3 * RATE
    wait_for("the one that is left answers", lambda: ended(scaled) > more, timeout_s=60)
    http(scaled.url("LOCUST_PORT") + "/stop", body={})
    _, rows = finish(scaled, before)
    assert failed(rows) == []


def test_one_engine_more_costs_no_request_and_gets_its_share(scaled: Stack) -> None:
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


def test_the_stopped_router_ends_so_that_docker_starts_it_after_a_reboot(scaled: Stack) -> None:
    scaled.compose("stop", "router")
    assert scaled.container("router").attrs["State"]["ExitCode"] == 143
