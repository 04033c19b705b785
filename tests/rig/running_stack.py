"""The real stack for the tests: the airgap layer under a project name and ports of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.error import HTTPError

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker.models.containers import Container

ROOT = Path(__file__).parents[2]
PORTS = ("VLLM_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT", "LOCUST_PORT")
START_TIMEOUT_S = 600

T = TypeVar("T")


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def wait_for(what: str, probe: Callable[[], T | None], timeout_s: float) -> T:
    """Return the first true value of `probe`, asked twice a second; fails with `what` and the last value or error."""
    deadline = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            if value := probe():
                return value
            last = value
        except OSError as error:
            last = error
        time.sleep(0.5)
    pytest.fail(f"{what}: not within {timeout_s:g} s, last seen {last!r}")


def http(url: str, body: object = None, *, key: str = "", timeout_s: float = 60) -> bytes:
    """Body of a GET, or of a POST of `body` as JSON; raises OSError unless it is a success."""
    import urllib.request  # noqa: PLC0415  # see Stack.containers

    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        content: bytes = answer.read()
    return content


@dataclass
class Stack:
    """A running copy of the stack from the checkout in `folder`, with `layers` and the tests' own on the base."""

    project: str
    folder: Path = ROOT
    env: dict[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ("airgap",)
    key: str = ""  # of the API

    def __post_init__(self) -> None:
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.env = {name: str(port) for name, port in self.ports.items()} | self.env

    @property
    def files(self) -> list[str]:
        """Compose files, in `folder`."""
        return ["compose.yaml", *(f"compose.{layer}.yaml" for layer in self.layers), "tests/rig/compose.yaml"]

    def command(self, *args: str) -> list[str]:
        """`docker compose` with `args`, for this stack."""
        chosen = [part for file in self.files for part in ("-f", file)]
        return ["docker", "compose", "--env-file", os.devnull, "-p", self.project, *chosen, *args]

    def environment(self, **env: str) -> dict[str, str]:
        """Environment of `docker compose`: the stack's settings, with `env` on top, and nothing of the tests' own."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return inherited | self.env | env

    def compose(self, *args: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `docker compose` with `env` on top of the stack's settings; fails the test on an error, if `check`."""
        command = self.command(*args)
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**env),
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} exited with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def containers(self, service: str) -> list[Container]:
        """Return the service's containers, running or not."""
        import docker  # noqa: PLC0415  # not above: Locust's tests must be the first to import what it patches

        label = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        found: list[Container] = docker.from_env().containers.list(all=True, filters={"label": label})
        assert found, f"{service} has no container"
        return found

    def container(self, service: str) -> Container:
        """Return the service's first container, running or not."""
        return self.containers(service)[0]

    def seconds_run(self, service: str) -> float:
        """Seconds from the start to the end of a service that has ended."""
        state = self.container(service).attrs["State"]
        # Python 3.11 reads microseconds, Docker writes nanoseconds.
        start, end = (datetime.fromisoformat(state[name][:26] + "+00:00") for name in ("StartedAt", "FinishedAt"))
        return (end - start).total_seconds()

    def logs(self, service: str) -> str:
        return self.compose("logs", "--no-log-prefix", service).stdout

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self.ports[port]}"

    @property
    def api(self) -> str:
        return self.url("VLLM_PORT") + "/v1"

    def chat(self, question: str) -> str:
        """Return the model's greedy answer."""
        [model] = json.loads(http(f"{self.api}/models", key=self.key))["data"]
        body = {
            "model": model["id"],
            "messages": [{"role": "user", "content": question}],
            "max_tokens": 32,
            "temperature": 0,
        }
        answer = json.loads(http(f"{self.api}/chat/completions", body, key=self.key))
        text: str = answer["choices"][0]["message"]["content"]
        return text

    def prometheus(self, path: str, **parameters: object) -> Any:
        """Return `data` of an answer of Prometheus' API; fails with Prometheus' message when it refuses."""
        url = f"{self.url('PROMETHEUS_PORT')}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            answer = json.loads(http(url))
        except HTTPError as error:
            answer = json.loads(error.read())
        assert answer["status"] == "success", f"{parameters}: {answer}"
        return answer["data"]

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Result vector of an instant query."""
        result: list[dict[str, Any]] = self.prometheus("query", query=promql)["result"]
        return result

    def firing(self, alert: str) -> bool:
        """Return whether the alert fires, for any labels."""
        return bool(self.query(f'ALERTS{{alertname="{alert}", alertstate="firing"}}'))

    def value(self, promql: str) -> float:
        """Return the only value of an instant query; NaN when it is empty."""
        result = self.query(promql)
        return float(result[0]["value"][1]) if result else float("nan")

    def down(self) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "10")

    def report(self) -> str:
        """State, last log lines and load of every container."""
        parts = [self.compose("ps", "--all", check=False).stdout]
        parts.append(self.compose("logs", "--tail", "80", check=False).stdout)
        parts.append(self.compose("stats", "--no-stream", check=False).stdout)
        return "\n".join(parts)


STACKS: list[Stack] = []
STAGES: dict[str, float] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the seconds of each step of the stack's first start."""
    for stage, seconds in STAGES.items():
        terminalreporter.write_line(f"{seconds:7.1f} s  {stage}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show every running stack's state beside a failure."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        for stack in STACKS:
            report.sections.append((f"stack {stack.project} at the failure of {item.name}", stack.report()))


@pytest.fixture(scope="session")
def new_stack() -> Iterator[Callable[..., Stack]]:
    """Make stacks that are always torn down, with everything that they own."""

    def make(name: str, folder: Path = ROOT, layers: tuple[str, ...] = ("airgap",), key: str = "", **env: str) -> Stack:
        stack = Stack(f"headroom-{name}-{os.getpid()}", folder, env, layers, key)
        STACKS.append(stack)
        return stack

    yield make
    for stack in STACKS:
        stack.down()


# Engine starts: one, which every test on a running engine shares.
@pytest.fixture(scope="session")
def stack(new_stack: Callable[..., Stack]) -> Stack:
    """The stack, started from nothing as a new user starts it."""
    # The watchdog waits longer than EngineStalled needs, 80 s here, and half a minute less than by default.
    stack = new_stack("test", ENGINE_STALL_TIMEOUT_S="90")
    start = time.monotonic()
    stack.compose("build")
    built = time.monotonic()
    stack.compose("up", "-d", "--wait", "--wait-timeout", str(START_TIMEOUT_S))
    STAGES["own images built"] = built - start
    STAGES["model downloaded and verified"] = stack.seconds_run("model")
    STAGES["up to healthy, model included"] = time.monotonic() - built
    return stack


@pytest.fixture(scope="session")
def copy_of_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree in another folder, as a clone would make it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    copy = tmp_path_factory.mktemp("clone") / "second"
    for name in listed.stdout.splitlines():
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target)
    return copy
