"""The stack file on a swarm of one host: scaled and updated under load, no request lost.

Not part of scripts/test: it copies 7 GB of images into memory, and takes ten minutes. As root, after
docker/airgap/build-images.sh:

    pytest -s tests/swarm
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.second_engine import Engine, second_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SETTINGS = {"MODELSCOPE_ENDPOINT": "http://hub:8080", "NO_PROXY": "hub", "MODEL_ID": MODEL, "ENGINES_PER_HOST": "2"}
RATE = 2
NAMES = ("model", "engine", "router", "prometheus", "loadtest")


@pytest.fixture(scope="module")
def swarm() -> Iterator[Engine]:
    subprocess.run(
        ["docker", "compose", "-f", "docker/swarm/images.yaml", "build", "--quiet"],
        cwd=ROOT,
        env={**os.environ, "TAG": "1"},
        check=True,
    )
    with second_engine() as engine:
        engine.load("headroom/airgap-hub:1", *(f"headroom-{name}:1" for name in NAMES))
        engine.docker("tag", "headroom-engine:1", "headroom-engine:2")
        for name in NAMES:
            engine.docker("tag", f"headroom-{name}:1", f"headroom-{name}:2")
        engine.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        node = engine.docker("node", "ls", "--quiet")
        engine.docker("node", "update", "--label-add", "headroom.engine=true", node)
        engine.docker("secret", "create", "vllm_api_key", str(ROOT / "tests/swarm/key"))
        deploy(engine, tag="1")
        until("one engine has joined", lambda: len(joined(engine)) == 1, timeout_s=600)
        yield engine


def deploy(engine: Engine, tag: str) -> None:
    files = ["-c", str(ROOT / "docker/swarm/stack.yaml"), "-c", str(ROOT / "tests/swarm/hub.yaml")]
    engine.docker(
        "stack", "deploy", "--detach=true", "--resolve-image=never", *files, "headroom", env={"TAG": tag, **SETTINGS}
    )


def until(what: str, met: Callable[[], bool], timeout_s: float) -> None:
    begun = time.monotonic()
    last: object = None
    while time.monotonic() - begun < timeout_s:
        try:
            if met():
                print(f"{what}: after {time.monotonic() - begun:.0f} s", flush=True)
                return
        except (AssertionError, IndexError, ValueError) as error:  # no container yet
            last = error
        time.sleep(1)
    pytest.fail(f"{what}: not within {timeout_s:g} s; {last}")


def get(engine: Engine, url: str) -> str:
    """Return a page, as the load generator's container reaches it."""
    key = "open('/run/secrets/vllm_api_key').read().strip()"
    ask = f"u.Request({url!r}, headers={{'Authorization': 'Bearer ' + {key}}})"
    return engine.python(
        "headroom_locust", f"import urllib.request as u; print(u.urlopen({ask}, timeout=10).read().decode())"
    )


def joined(engine: Engine) -> list[str]:
    """Return the URLs of the engines that the router sends requests to."""
    workers = json.loads(get(engine, "http://router:8000/workers"))["workers"]
    return [worker["url"] for worker in workers if worker["is_healthy"]]


def decisions(engine: Engine, url: str) -> float:
    """Return the number of requests that the router has sent to an engine."""
    page = get(engine, "http://router:29000/metrics")
    lines = [
        line for line in page.splitlines() if line.startswith("vllm_router_policy_decisions_total") and url in line
    ]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def cores(engine: Engine) -> list[set[int]]:
    """Return the cores of each engine."""
    code = "import os; print(*os.sched_getaffinity(next(int(p) for p in os.listdir('/proc') if p.isdigit() and "
    code += "b'EngineCore' in open(f'/proc/{p}/cmdline', 'rb').read())))"
    found = [
        engine.docker("exec", container, "python3", "-c", code) for container in engine.containers("headroom_vllm")
    ]
    return [{int(core) for core in line.split()} for line in found]


class Load:
    """An open loop from a container of the stack, until it is ended."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.folder = engine, f"/reports/{name}"
        self.container = engine.containers("headroom_locust")[0]
        command = (
            f"echo $$ > /tmp/{name}.pid; exec with-api-key locust --headless --only-summary -u 1 -t 30m "
            f"--arrival constant --rate {RATE} --prompt-tokens 64 --output-tokens 16 --report-dir {self.folder}"
        )
        self.process = subprocess.Popen(
            ["docker", "--host", engine.host, "exec", self.container, "sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.name = name

    def end(self) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """Stop the load; return its summary and rows."""
        self.engine.docker("exec", self.container, "sh", "-c", f"kill -INT $(cat /tmp/{self.name}.pid)")
        output, _ = self.process.communicate(timeout=120)
        files = [
            self.engine.docker("exec", self.container, "cat", f"{self.folder}/{file}", check=False)
            for file in ("summary.json", "requests.csv")
        ]
        assert all(files), output
        return json.loads(files[0]), list(csv.DictReader(io.StringIO(files[1])))


def assert_nothing_failed(rows: list[dict[str, str]], during_s: float) -> None:
    failed = [row for row in rows if row["outcome"] not in {"ok", "cancelled"}]
    print(f"{len(rows)} requests in {during_s:.0f} s, {len(failed)} failed {failed or ''}", flush=True)
    assert failed == []
    assert len(rows) >= 0.9 * RATE * during_s


def test_scaling_under_load_fails_no_request(swarm: Engine) -> None:
    begun = time.monotonic()
    load = Load(swarm, "scaled")
    [first] = joined(swarm)
    until("requests reach the engine", lambda: decisions(swarm, first) > 5, timeout_s=60)
    swarm.docker("service", "scale", "--detach", "headroom_vllm=2")
    until("the second has joined", lambda: len(joined(swarm)) == 2, timeout_s=300)
    [second] = set(joined(swarm)) - {first}
    until("it gets its share", lambda: decisions(swarm, second) > 5, timeout_s=60)
    one, other = cores(swarm)
    assert not one & other, "both engines sit on the same cores"
    swarm.docker("service", "scale", "--detach", "headroom_vllm=1")
    until("one has left", lambda: len(joined(swarm)) == 1, timeout_s=60)
    [left] = joined(swarm)
    since = decisions(swarm, left)
    until("the other goes on", lambda: decisions(swarm, left) > since + 10, timeout_s=60)
    _, rows = load.end()
    assert_nothing_failed(rows, time.monotonic() - begun - 15)


def test_rolling_update_fails_no_request(swarm: Engine) -> None:
    begun = time.monotonic()
    load = Load(swarm, "updated")
    [old] = joined(swarm)
    until("requests reach the engine", lambda: decisions(swarm, old) > 5, timeout_s=60)
    swarm.docker("service", "update", "--detach", "--no-resolve-image", "--image", "headroom-engine:2", "headroom_vllm")
    until("another engine carries all", lambda: len(joined(swarm)) == 1 and joined(swarm) != [old], timeout_s=400)
    status = "UpdateStatus.State"
    until(
        "it is complete", lambda: swarm.inspect("service", "headroom_vllm", f".{status}") == "completed", timeout_s=200
    )
    [new] = joined(swarm)
    since = decisions(swarm, new)
    until("the new one goes on", lambda: decisions(swarm, new) > since + 10, timeout_s=60)
    _, rows = load.end()
    assert_nothing_failed(rows, time.monotonic() - begun - 15)
    images = swarm.docker(
        "ps", "--filter", "label=com.docker.swarm.service.name=headroom_vllm", "--format", "{{.Image}}"
    )
    assert images == "headroom-engine:2"


def test_prometheus_finds_all_parts(swarm: Engine) -> None:
    query = "http://prometheus:9090/api/v1/query?query=count%20by%20(job)%20(up%20%3D%3D%201)"
    found = json.loads(get(swarm, query))["data"]["result"]
    jobs = {series["metric"]["job"]: int(series["value"][1]) for series in found}
    assert {"vllm", "router", "locust", "prometheus"} <= jobs.keys()
