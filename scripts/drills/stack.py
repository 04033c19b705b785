"""The running stack by Docker's SDK: containers, addresses, processes, metrics."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import compose_project
import docker
import docker.errors
import requests
from compose_project import ONE_OFF_LABEL, PROJECT_LABEL, SERVICE_LABEL
from drills import direct_http

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker.models.containers import Container

HTTP_TIMEOUT_S = 30.0
POLL_S = 0.5
T = TypeVar("T")


class StackError(Exception):
    """The stack is missing or unfit for a drill; the message is one line."""


class RunningStack:
    """One Compose project on this box's Docker engine."""

    def __init__(self, project: str | None = None) -> None:
        """Find `project`, by default this folder's.

        Raises StackError when it has no containers or Docker does not answer.
        """
        try:
            self.project = project or compose_project.name()
            self.client = docker.from_env()
            found = self._list()
        except (docker.errors.DockerException, compose_project.DockerError) as error:
            raise StackError(f"Docker does not answer ({error}): is it running, and may you use it?") from None
        if not found:
            others = sorted({str(one.labels[PROJECT_LABEL]) for one in self._list(every_project=True)})
            hint = f"running here: {', '.join(others)}" if others else "start it: docker compose up -d --wait"
            raise StackError(f"no stack is called {self.project}: give --project ({hint})")

    def _list(self, service: str = "", *, every_project: bool = False) -> list[Container]:
        labels = [PROJECT_LABEL] if every_project else [f"{PROJECT_LABEL}={self.project}"]
        labels += [f"{SERVICE_LABEL}={service}"] if service else []
        listed: list[Container] = self.client.containers.list(all=True, filters={"label": labels})
        return [one for one in listed if one.labels.get(ONE_OFF_LABEL, "False") == "False"]

    def containers(self, service: str = "") -> list[Container]:
        """Containers of one service, or of all, sorted by name, without jobs of `docker compose run`."""
        return sorted(self._list(service), key=lambda one: str(one.name))

    def has(self, service: str) -> bool:
        """Return whether the service has a container."""
        return bool(self._list(service))

    def container(self, service: str) -> Container:
        """The service's first container, freshly inspected. Raises StackError when it has none."""
        found = self.containers(service)
        if not found:
            raise StackError(f"{self.project} has no container of {service}")
        return found[0]

    def state(self, service: str) -> dict[str, Any]:
        """Docker's `State` of the service's first container, with its `RestartCount`."""
        attributes = self.container(service).attrs
        return {**attributes["State"], "RestartCount": attributes["RestartCount"]}

    def env(self, service: str, name: str) -> str:
        """A variable in the service's environment; empty when unset."""
        variables = dict(line.split("=", 1) for line in self.container(service).attrs["Config"]["Env"] if "=" in line)
        return str(variables.get(name, ""))

    def url(self, service: str, port: int) -> str:
        """URL of the service: its published port, or the container's address where none is published."""
        attributes = self.container(service).attrs
        bindings = attributes["HostConfig"]["PortBindings"] or {}
        for binding in bindings.get(f"{port}/tcp") or ():
            host = binding["HostIp"] if binding["HostIp"] not in {"", "0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104  # compared
            return f"http://{host}:{binding['HostPort']}"
        for network in attributes["NetworkSettings"]["Networks"].values():
            if network["IPAddress"]:
                return f"http://{network['IPAddress']}:{port}"
        raise StackError(f"{service} has no address: is it up?")

    def shell(self, service: str, script: str, **env: str) -> str:
        """Output of a shell script in the service's container. Raises StackError when it fails."""
        return shell(self.container(service), script, **env)

    def signal(self, service: str, signal: str, *names: str) -> int:
        """Signal a container's processes whose names begin with one of `names`; return their number.

        From inside the container: that needs no permission on the host, and Docker does not count it as a stop.
        """
        script = """
            sent=0
            for process in /proc/[0-9]*; do
              read -r name <"$process/comm" 2>/dev/null || continue
              for wanted in $NAMES; do
                case $name in "$wanted"*) kill "-$SIGNAL" "${process#/proc/}" && sent=$((sent + 1)) ;; esac
              done
            done
            echo "$sent"
        """
        sent = int(self.shell(service, script, NAMES=" ".join(names), SIGNAL=signal).split()[-1])
        if not sent:
            raise StackError(f"{service} runs no process called {' or '.join(names)}")
        return sent

    def logs(self, service: str, lines: int = 200) -> str:
        """Last lines of the service's log."""
        return self.container(service).logs(tail=lines).decode("utf-8", "replace")

    def last_message(self, service: str) -> str:
        """Last line of the service's log that the project itself wrote, except the command line."""
        lines = [line for line in self.logs(service).splitlines() if line.startswith("headroom: ")]
        lines = [line for line in lines if not line.startswith("headroom: vllm serve")]
        return lines[-1] if lines else ""

    def messages_since(self, service: str, unix_s: float) -> list[str]:
        """Lines of the service's log that the project itself wrote since `unix_s`."""
        text = self.container(service).logs(since=int(unix_s)).decode("utf-8", "replace")
        return [line for line in text.splitlines() if line.startswith("headroom: ")]

    @property
    def key(self) -> str:
        """The API's key, from the environment or the file named in .env; empty for none."""
        given = os.environ.get("VLLM_API_KEY") or self.env("vllm", "VLLM_API_KEY")
        return given or self._mounted("vllm", self.env("vllm", "VLLM_API_KEY_FILE"))

    def _mounted(self, service: str, path: str) -> str:
        """Text of the host's file that is mounted at `path`; empty for none."""
        for mount in self.container(service).attrs["Mounts"]:
            if mount["Destination"] == path:
                try:
                    return Path(mount["Source"]).read_text().strip()
                except OSError as error:
                    raise StackError(f"{mount['Source']}: {error.strerror}: set VLLM_API_KEY in the shell") from None
        return ""

    def headers(self) -> dict[str, str]:
        """Headers of an API request."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def model(self) -> str:
        """The served model's name, the first of several."""
        return (self.env("vllm", "SERVED_MODEL_NAME").split() or [self.env("vllm", "MODEL_ID").strip()])[0]

    def query(self, promql: str, at: float | None = None) -> list[dict[str, Any]]:
        """Result of an instant query, at Unix time `at` or now. Raises requests' errors."""
        parameters: dict[str, Any] = {"query": promql} | ({} if at is None else {"time": at})
        url = f"{self.url('prometheus', 9090)}/api/v1/query"
        answer = direct_http.get(url, params=parameters, timeout=HTTP_TIMEOUT_S)
        answer.raise_for_status()
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def value(self, promql: str, at: float | None = None) -> float | None:
        """Single value of an instant query; None for none."""
        result = self.query(promql, at)
        return float(result[0]["value"][1]) if result else None

    def alerts(self) -> list[dict[str, Any]]:
        """Active alerts. Raises requests' errors."""
        answer = direct_http.get(f"{self.url('prometheus', 9090)}/api/v1/alerts", timeout=5)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["alerts"]
        return found

    @contextlib.contextmanager
    def stand_in(self, service: str, change: Callable[[dict[str, Any]], None]) -> Iterator[Container]:
        """Replace a service's container by a changed copy for a while.

        `change` edits the copy's configuration, in the form of Docker's API.
        """
        original = self.container(service)
        attributes = original.attrs
        config = {**attributes["Config"], "HostConfig": attributes["HostConfig"]}
        config["Labels"] = {**config["Labels"], ONE_OFF_LABEL: "True"}
        config["NetworkingConfig"] = {
            "EndpointsConfig": {
                name: {"Aliases": [service, *(network.get("Aliases") or ())]}
                for name, network in attributes["NetworkSettings"]["Networks"].items()
            }
        }
        change(config)
        original.stop()
        copy = None
        try:
            api: Any = self.client.api  # untyped in the SDK's stubs
            made = api.create_container_from_config(config, name=f"{original.name}-drill")
            copy = self.client.containers.get(made["Id"])
            copy.start()
            yield copy
        finally:
            if copy is not None:
                copy.remove(force=True, v=False)
            original.start()


def wait_for(what: str, probe: Callable[[], T | None], within_s: float) -> T:
    """Return the first true value of `probe`; its request and stack errors count as "not yet".

    Raises StackError when there is none within `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    while True:
        last: object
        try:
            if value := probe():
                return value
            last = value
        except (requests.RequestException, StackError) as error:
            last = error
        if time.monotonic() > deadline:
            raise StackError(f"{what}: not within {within_s:.0f} s (last seen: {str(last)[:120]})")
        time.sleep(POLL_S)


def shell(container: Container, script: str, **env: str) -> str:
    """Output of a shell script in a container. Raises StackError when it fails."""
    done: Any = container.exec_run(["sh", "-c", script], environment=env)  # output is bytes, as nothing is streamed
    text: str = done.output.decode("utf-8", "replace")
    if done.exit_code:
        raise StackError(f"{container.name}: {script.strip()[:80]!r} ended with {done.exit_code}: {text[-200:]}")
    return text
