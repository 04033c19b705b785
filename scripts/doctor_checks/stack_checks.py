"""Checks of the stack: model on its volume, containers, Prometheus' targets and alerts."""

from __future__ import annotations

import json
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import compose_project
from compose_project import service_of
from doctor_checks.check_result import CheckResult, fail, ok, warn
from repository import import_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

import_from("docker/vllm")

import api_client  # noqa: E402  # from the folder above

_ASK_S = 5
_STOPPED = {0, 130, 143}  # by itself, by Ctrl-C, by `docker compose stop`
_HUB = {"modelscope": "https://www.modelscope.cn", "huggingface": "https://huggingface.co"}
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # Compose writes them without a terminal too
_SIZES = {"B": 1, "MB": 1e6, "GB": 1e9}


@dataclass(frozen=True)
class OnVolume:
    """State of the wanted model on the volume; `bytes` is its present size, `ready` means complete."""

    ready: bool
    bytes: float
    known: bool  # False: no volume or no image yet
    config: Mapping[str, Any] | None = None  # config.json of a complete model


def wanted_model(model: Mapping[str, Any]) -> OnVolume:
    """Look up the wanted model with the model's own container, without network."""
    service, volume = model["services"]["model"], model["volumes"]["models"]["name"]
    # Check first: running the container would create the volume.
    if not (compose_project.has_image(service["image"]) and compose_project.has_volume(volume)):
        return OnVolume(ready=False, bytes=0, known=False)
    environment = service["environment"]
    given = [f"{name}={environment.get(name) or ''}" for name in ("MODEL_SOURCE", "MODEL_ID", "MODEL_REVISION")]
    run = ("run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--volume", f"{volume}:/models:ro")
    options = [option for value in given for option in ("--env", value)]
    try:
        listed = compose_project.docker(*run, *options, service["image"], "list")
    except compose_project.DockerError:
        return OnVolume(ready=False, bytes=0, known=False)
    found = re.search(r"^(\w+) +([\d.]+) (\w+) .*<- the settings$", listed, re.MULTILINE)
    if found is None:
        return OnVolume(ready=False, bytes=0, known=True)
    size = float(found[2]) * _SIZES.get(found[3], 1)
    if found[1] != "READY":
        return OnVolume(ready=False, bytes=size, known=True)
    try:
        file = f"/models/{environment['MODEL_ID'].strip()}/config.json"
        config = json.loads(compose_project.docker(*run, "--entrypoint", "cat", service["image"], file))
    except (compose_project.DockerError, ValueError, RecursionError):
        config = None
    return OnVolume(ready=True, bytes=size, known=True, config=config if isinstance(config, dict) else None)


def check_model(model: Mapping[str, Any], found: OnVolume) -> Iterator[CheckResult]:
    """Check that the wanted model is complete, or that its source can be reached."""
    env = model["services"]["model"]["environment"]
    name = env["MODEL_ID"]
    if found.ready:
        yield ok("model", f"{name}, {found.bytes / 1e9:.1f} GB, complete", "complete on the volume")
        return
    state = f"{name} is not complete" if found.known else f"{name} is not downloaded yet"
    yield warn("model", state, "complete on the volume", "`docker compose up -d` downloads it")
    source = env.get("MODEL_SOURCE") or "modelscope"
    setting = {"modelscope": "MODELSCOPE_ENDPOINT", "huggingface": "HF_ENDPOINT"}.get(source)
    if setting is None:
        return
    address = env.get(setting) or _HUB[source]
    if "." not in (urllib.parse.urlsplit(address).hostname or ""):
        return  # a name of the stack's network, such as the airgap layer's hub
    secrets = model.get("secrets") or {}
    problem = _cannot_reach(address, download_proxies(env), str(secrets.get("ca_bundle", {}).get("file") or ""))
    if problem:
        fix = f"check network and proxy; a mirror: {setting}; other sources: docs/models.md"
        if "CERTIFICATE_VERIFY_FAILED" in problem:
            fix = "CA_BUNDLE_FILE in .env: the PEM file of your network's authority"
        yield warn("model source", f"{address}: {problem}", "an answer", fix)
    else:
        yield ok("model source", address, "an answer")


def download_proxies(env: Mapping[str, Any]) -> dict[str, str]:
    """Proxies of the model's container by scheme, and `no`: of its environment, else of Docker's client settings."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        docker = json.loads((folder / "config.json").read_text())["proxies"]["default"]
    except (OSError, ValueError, KeyError, TypeError):
        docker = {}
    names = {"http": "httpProxy", "https": "httpsProxy", "all": "allProxy", "no": "noProxy"}
    found = {scheme: env.get(f"{scheme.upper()}_PROXY") or docker.get(name) for scheme, name in names.items()}
    return {scheme: str(value) for scheme, value in found.items() if value}


def _cannot_reach(address: str, proxies: Mapping[str, str], ca_file: str) -> str:
    """Reason why the address does not answer by the download's way; empty if it does, with any status."""
    parts = urllib.parse.urlsplit(address)
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if urllib.request.proxy_bypass_environment(parts.netloc, {"no": proxies.get("no", "")}):  # type: ignore[attr-defined]
        proxy = None
    context = ssl.create_default_context()
    try:
        if ca_file and Path(ca_file).stat().st_size:
            context.load_verify_locations(ca_file)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({parts.scheme: proxy} if proxy else {}),
            urllib.request.HTTPSHandler(context=context),
        )
        with opener.open(address, timeout=_ASK_S):
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def check_containers(model: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> Iterator[CheckResult]:
    """Check that every service runs and is healthy; show a failed container's last line."""
    by_service: dict[str, list[Mapping[str, Any]]] = {}
    for container in containers:
        by_service.setdefault(service_of(container), []).append(container)
    if not any(container["State"]["Running"] for container in containers):
        failed = [container for container in containers if container["State"]["ExitCode"] not in {*_STOPPED, 137}]
        for container in failed:
            yield _failed(service_of(container), container["State"])
        if not failed:
            yield ok("stack", "down", "")
        return
    for name in model["services"]:
        if name not in by_service:
            yield warn(name, "has no container", "running", "`docker compose up -d --wait`")
    for name, copies in sorted(by_service.items()):
        for container in copies:
            yield _container(name, container)


def _container(name: str, container: Mapping[str, Any]) -> CheckResult:
    state = container["State"]
    if not state["Running"]:
        return _ended(name, container)
    health = (state.get("Health") or {}).get("Status", "")
    restarts = int(container.get("RestartCount", 0))
    # Docker also calls a container running that waits for its next start.
    if state.get("Restarting"):
        return fail(name, f"ends and starts again: {_last_line(name)}", "running", f"`docker compose logs {name}`")
    if health == "unhealthy":
        log = ((state["Health"].get("Log") or [{}])[-1].get("Output") or "").strip().splitlines()
        said = log[-1] if log and not restarts else _last_line(name)
        return fail(name, f"unhealthy: {said}", "healthy", f"`docker compose logs {name}`")
    if health == "starting":
        return warn(name, "still starting", "healthy", f"wait; `docker compose logs -f {name}` shows how far it is")
    if restarts:
        return warn(name, f"running, restarted {restarts} times", "no restarts", f"`docker compose logs {name}`")
    return ok(name, f"running{', healthy' if health else ''}", "")


def _ended(name: str, container: Mapping[str, Any]) -> CheckResult:
    state = container["State"]
    if state["ExitCode"] == 0 and container["HostConfig"]["RestartPolicy"]["Name"] in {"no", ""}:
        return ok(name, "has run and ended well", "")
    if state["ExitCode"] in _STOPPED:
        return warn(name, "is stopped", "running", "`docker compose up -d --wait`")
    return _failed(name, state)


def _failed(name: str, state: Mapping[str, Any]) -> CheckResult:
    if state.get("OOMKilled"):
        return fail(name, "ended by the kernel: out of memory", "running", "a smaller model, or more memory")
    said = f"ended with {state['ExitCode']}: {_last_line(name)}"
    return fail(name, said, "running", f"`docker compose logs {name}`")


def _last_line(name: str) -> str:
    """Last line of a service's log that the project wrote, else the last line."""
    try:
        text = compose_project.docker("compose", "logs", "--no-log-prefix", "--tail", "40", name)
        log = _CONTROL.sub("", text).strip().splitlines()
    except compose_project.DockerError:
        log = []
    own = [line for line in log if re.match(r"(headroom|error): ", line)]
    return (own or log or ["it said nothing"])[-1]


def prometheus_at(containers: Sequence[Mapping[str, Any]]) -> str:
    """Prometheus' URL: its published port, else its container's address, reachable on Linux; empty for none."""
    for container in containers:
        if service_of(container) == "prometheus" and runs("prometheus", [container]):
            settings = container["NetworkSettings"]
            for bindings in (settings["Ports"] or {}).values():
                for item in bindings or ():
                    return f"http://{item['HostIp']}:{item['HostPort']}"
            for network in settings["Networks"].values():
                return f"http://{network['IPAddress']}:9090"
    return ""


def runs(service: str, containers: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a container of the service runs; it may publish no port."""
    return any(
        # Docker also sets Running for a container that waits for its restart.
        container["State"]["Running"] and not container["State"].get("Restarting")
        for container in containers
        if service_of(container) == service
    )


def published(containers: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[str, int]]]:
    """(address, port) on this box of every running container, by service."""
    found: dict[str, list[tuple[str, int]]] = {}
    for container in containers:
        if not container["State"]["Running"]:
            continue
        name = service_of(container)
        for bindings in (container["NetworkSettings"]["Ports"] or {}).values():
            found.setdefault(name, []).extend((item["HostIp"], int(item["HostPort"])) for item in bindings or ())
    return found


def check_targets(prometheus: str) -> Iterator[CheckResult]:
    """Check Prometheus' targets and alerts; `prometheus` is its URL, empty when it does not run."""
    if not prometheus:
        return
    try:
        targets = _ask(f"{prometheus}/api/v1/targets?state=active")["activeTargets"]
        alerts = _ask(f"{prometheus}/api/v1/alerts")["alerts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield fail("Prometheus", f"does not answer: {error}", "targets", "`docker compose logs prometheus`")
        return
    for target in targets:
        name = f"target {target['labels'].get('job', '?')}"
        if target["health"] == "up":
            yield ok(name, f"{target['scrapeUrl']} scraped", "")
        elif target["health"] == "unknown":
            yield warn(name, f"{target['scrapeUrl']} not scraped yet", "up", "wait some seconds")
        else:
            yield fail(name, f"{target['scrapeUrl']}: {target['lastError']}", "up", "see its service above")
    for alert in alerts:
        # Severity info is no problem, such as a running load test.
        if alert["state"] == "firing" and alert["labels"].get("severity") != "info":
            name = alert["labels"]["alertname"]
            yield warn("alert", f"{name} fires", "none", f"docs/runbook.md#{name.lower()}")


def _ask(url: str) -> Any:
    with api_client.DIRECT.open(url, timeout=_ASK_S) as answer:
        return json.loads(answer.read())["data"]
