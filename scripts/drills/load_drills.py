"""Drills on the load test and by load: lost worker, master and network, overload, unread streams."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from drills import direct_http
from drills.engine_drills import DEFAULT_STALL_S, START_S, engine_restarts, expect_history, history
from drills.load_run import LoadTestRun, status, worker_ids, workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drills.scene import Scene

RUN_S = 60
CUT_S = 75
OVERLOAD_S = 300
OVERLOAD = 10
UNREAD_STREAMS, UNREAD_TOKENS = 500, 32
REJECTED = "rejected"
API_SERVER_BYTES = "max(avg_over_time(process_resident_memory_bytes{job='vllm'}[30s]))"


def worker_killed(scene: Scene) -> None:
    """Kill -9 of a load-sending process in the middle of a test."""
    known = worker_ids(scene.stack)
    run = LoadTestRun(scene.stack, run_time=f"{RUN_S}s")
    run.wait_until_busy()
    scene.stack.signal("locust-worker", "KILL", "locust")
    scene.broken(f"one of {len(known)} workers is killed")
    scene.wait("its replacement has joined", lambda: worker_ids(scene.stack) - known, 60)
    scene.result.recovered_s = scene.since()
    summary = run.summary(RUN_S + 180)
    lost = [reason for reason in summary["verdict"]["reasons"] if "was lost" in reason]
    scene.expect(lost and summary["verdict"]["exit_code"] == 2, f"the report does not say so: {summary['verdict']}")
    scene.result.user_saw = "the report: invalid, and which worker was lost"
    scene.result.alert = "none: the run itself says so"
    scene.expect(summary["requests"]["ok"] >= 16, f"the report has {summary['requests']}")
    server = summary["server"]
    unseen = sum(server["requests"].values()) - summary["requests"]["ok"]
    scene.expect(0 <= unseen <= 64, f"the engine ended {unseen} requests that the report does not have")
    scene.result.lost = f"{unseen:.0f} requests of the killed worker's last second, of {summary['requests']['total']}"
    expect_a_run(scene)


def master_killed(scene: Scene) -> None:
    """Kill -9 of Locust's master in the middle of a test."""
    there = workers(scene.stack)
    with scene.watched():
        run = LoadTestRun(scene.stack)
        run.wait_until_busy()
        rows = "find /reports -name requests.csv.partial -exec cat {} + | wc -l"
        scene.stack.signal("locust", "KILL", "locust")
        scene.broken("the master is killed")
        scene.wait("the page answers", lambda: status(scene.stack), 60)
        scene.wait("the workers have joined", lambda: workers(scene.stack) >= there, 120)
        scene.result.recovered_s = scene.since()
        kept = int(scene.stack.shell("locust", rows).split()[-1])
        scene.expect(kept > 8, f"only {kept} rows of the run are on the volume")
        scene.note_users()
    scene.result.user_saw = f"the page is away; API: {scene.result.user_saw}"
    scene.result.alert = "none: back before LoadGeneratorDown (2 min)"
    scene.result.lost = f"the run's report; {kept} rows of its requests are kept"
    expect_a_run(scene)


def expect_a_run(scene: Scene) -> None:
    """Check that a new load test works from start to report."""
    summary = LoadTestRun(scene.stack, max_requests="32").summary(300)
    scene.expect(summary["requests"]["ok"] >= 8, f"a new run ended {summary['requests']}")


@contextlib.contextmanager
def cut_off(scene: Scene, service: str) -> Iterator[None]:
    """Disconnect the service's first container from its network for a while."""
    container = scene.stack.container(service)
    name, settings = next(iter(container.attrs["NetworkSettings"]["Networks"].items()))
    network = scene.stack.client.networks.get(name)
    network.disconnect(container)
    try:
        yield
    finally:
        network.connect(container, aliases=[service, *(settings.get("Aliases") or ())])


def network_cut(scene: Scene) -> None:
    """The engine loses its network for 75 s in the middle of a load test."""
    before = history(scene)
    with scene.watched():
        run = LoadTestRun(scene.stack, request_timeout="30")
        run.wait_until_busy()
        with cut_off(scene, "vllm"):
            scene.broken("the engine has no network")
            scene.wait_for_alert("EngineDown", CUT_S + 60)
            scene.wait("75 s pass", lambda: scene.since() >= CUT_S, CUT_S)
        mended_at = time.monotonic()
        scene.wait_for_answers(120, since=mended_at)
        ended = run.requests_ended()
        scene.wait("the load test goes on", lambda: run.requests_ended() > ended + 8, 120)
        run.stop()
        summary = run.summary(120)
        scene.note_users()
    found = {name: count for name, count in summary["requests"].items() if count and name not in {"total", "ok"}}
    scene.expect(set(found) & {"connect", "timeout", "truncated"}, f"the run has none that failed: {found}")
    scene.result.notes.append(f"the load test counted {found} beside {summary['requests']['ok']} ok")
    scene.result.lost = "requests under way"
    expect_history(scene, before)


def overload(scene: Scene) -> None:
    """Ten times the requests that the engine can carry, for five minutes."""
    stack = scene.stack
    restarts, started = engine_restarts(scene), stack.value("max(process_start_time_seconds{job='vllm'})")
    closed = LoadTestRun(stack, users=32, run_time="20s").summary(180)
    carried = closed["throughput"]["requests_per_s"]
    scene.say(f"carries {carried:.1f} requests/s; sending {OVERLOAD * carried:.0f}")
    with scene.watched(asking=False):
        run = LoadTestRun(stack, arrival="poisson", rate=f"{OVERLOAD * carried:.2f}", run_time=f"{OVERLOAD_S}s", seed=1)
        scene.broken(f"{OVERLOAD * carried:.0f} requests/s")
        scene.wait_for_alert("AdmissionRejections", OVERLOAD_S)
        scene.result.noticed_s = scene.result.detected_s
        scene.wait("the five minutes pass", lambda: scene.since() >= OVERLOAD_S, OVERLOAD_S)
        ended_unix = time.time()
        summary = run.summary(600)
        url, body = (
            f"{stack.url('vllm', 8000)}/v1/completions",
            {"model": stack.model(), "prompt": "a", "max_tokens": 1},
        )
        scene.wait(
            "a question is answered",
            lambda: direct_http.post(url, json=body, headers=stack.headers(), timeout=60).ok,
            300,
        )
        scene.result.recovered_s = scene.since() - OVERLOAD_S
    counts = summary["requests"]
    scene.result.user_saw = ", ".join(f"{name} {count}" for name, count in counts.items() if count and name != "total")
    scene.result.lost = f"nothing; {counts[REJECTED]} refused with 503"
    first, last = (stack.value(API_SERVER_BYTES, at) or 0 for at in (scene.broken_unix + 90, ended_unix))
    growth = 60 * (last - first) / (ended_unix - scene.broken_unix - 90)
    fired = scene.alerts.fired if scene.alerts else {}
    scene.result.notes += [
        (
            f"carried {carried:.1f} requests/s without overload, served {counts['ok'] / OVERLOAD_S:.1f}/s in it, with "
            "the load test and the refusals on the same cores"
        ),
        (
            f"API server's memory {first / 2**20:.0f} to {last / 2**20:.0f} MiB from the second minute to the end "
            f"({growth / 2**20:+.1f} MiB/min)"
        ),
        f"alerts: {', '.join(f'{name} {at - scene.broken_at:.0f} s' for name, at in fired.items())}",
    ]
    scene.expect(counts[REJECTED] > counts["ok"], f"not refused: {counts}")
    scene.expect(counts["ok"] >= carried * OVERLOAD_S / 4, f"only {counts['ok']} were served, {carried:.1f}/s can be")
    scene.expect(not counts["error"] and not counts["truncated"], f"some failed otherwise: {counts}")
    scene.expect(engine_restarts(scene) == restarts, "the engine restarted")
    now = stack.value("max(process_start_time_seconds{job='vllm'})")
    scene.expect(now == started, "the saturated engine was ended and started again")
    scene.expect(last < 1.1 * first, scene.result.notes[1])


def unread_streams(scene: Scene) -> None:
    """A client opens 500 streams and reads nothing, for longer than a stalled engine would be given."""
    stack = scene.stack
    before = history(scene)
    started = stack.value("max(process_start_time_seconds{job='vllm'})")
    limit_s = float(stack.env("vllm", "ENGINE_STALL_TIMEOUT_S") or DEFAULT_STALL_S)
    in_flight = "sum(headroom_engine_requests_in_flight)"
    with scene.watched():
        descriptors = open_files(scene)
        sockets = [open_stream(scene, number) for number in range(UNREAD_STREAMS)]
        scene.broken(f"{UNREAD_STREAMS} streams are open, nobody reads")
        try:
            generated = "sum(vllm:num_requests_running) + sum(vllm:num_requests_waiting)"
            scene.wait("Prometheus sees them", lambda: (stack.value(generated) or 0) > 50, 60)
            scene.wait("the engine has made all their tokens", lambda: stack.value(generated) == 0, START_S)
            scene.say(f"the engine has finished them after {scene.since():.0f} s")
            done_at = time.monotonic()
            scene.wait("longer than a stall passes", lambda: time.monotonic() - done_at > limit_s + 30, limit_s + 60)
            scene.wait_for_answers(120, since=time.monotonic())
            scene.note_users()
            # Only afterwards: before, others wait behind them as behind any 500 requests.
            seen = Counter(one.outcome for one in scene.asker.answers if one.asked_at > done_at) if scene.asker else {}
            scene.expect(set(seen) == {"ok"}, f"afterwards other users saw {dict(seen)}")
        finally:
            for one in sockets:
                one.close()
        scene.wait("their requests are gone", lambda: (stack.value(in_flight) or 0) <= 1, 60)
        scene.wait("their descriptors are closed", lambda: open_files(scene) < descriptors + 20, 60)
    now = stack.value("max(process_start_time_seconds{job='vllm'})")
    scene.expect(now == started, "the engine was taken for a stalled one")
    slowest = max(one.ended_at - one.asked_at for one in scene.asker.answers) if scene.asker else 0
    scene.result.user_saw += f" (slowest {slowest:.0f} s)"
    scene.result.recovered_s = None
    scene.result.alert = "none: others are served"
    scene.result.lost = "nothing"
    expect_history(scene, before)


def open_stream(scene: Scene, number: int) -> socket.socket:
    """Open a stream that nobody will read."""
    stack = scene.stack
    address = urlsplit(stack.url("vllm", 8000))
    body = json.dumps(
        {"model": stack.model(), "prompt": f"{number} {time.time()}", "max_tokens": UNREAD_TOKENS, "stream": True}
    )
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    for name, value in stack.headers().items():
        head += f"{name}: {value}\r\n"
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect((address.hostname, address.port))
    one.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return one


def open_files(scene: Scene) -> int:
    """Number of open descriptors of the engine's processes."""
    return int(scene.stack.shell("vllm", "ls -d /proc/[0-9]*/fd/* 2>/dev/null | wc -l"))
