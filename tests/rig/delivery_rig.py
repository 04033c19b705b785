"""Parts of the delivery tests: the hub's container, volumes in memory, and model containers."""

from __future__ import annotations

import http.client
import json
import re
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    import docker
    from docker.models.containers import Container

MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Images:
    model: str
    hub: str


@dataclass
class Hub:
    """The hub's container and the side of it that only tests use."""

    container: Container
    network: str

    @property
    def ip(self) -> str:
        self.container.reload()
        ip: str = self.container.attrs["NetworkSettings"]["Networks"][self.network]["IPAddress"]
        return ip

    def order(self, *faults: dict[str, Any]) -> None:
        """Set the faults from now on, and forget the requests so far."""
        status, answer = self._call("POST", json.dumps(faults))
        assert status == 200, answer

    def requests(self, match: str = "") -> list[dict[str, Any]]:
        """Return the requests since the last order."""
        _, answer = self._call("GET")
        return [entry for entry in answer["requests"] if re.search(match, entry["request"])]

    def faults_left(self) -> list[int]:
        _, answer = self._call("GET")
        return [fault["times"] for fault in answer["faults"]]

    def sent(self, match: str = r"safetensors\b") -> int:
        """Return the body bytes that left the hub for matching GET requests."""
        return sum(entry["sent"] for entry in self.requests(match) if entry["request"].startswith("GET"))

    def _call(self, method: str, body: str | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.ip, 8080, timeout=30)
        try:
            connection.request(method, "/faults", body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


@dataclass
class Run:
    """A model container that has ended."""

    code: int
    log: str
    seconds: float

    @property
    def error(self) -> str:
        """Return the line of the error; fails unless there is exactly one."""
        errors = [line for line in self.log.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, self.log
        return errors[0]


class Volume:
    """A volume in memory, of a size that a test chooses, and a container that keeps it mounted and looks into it."""

    def __init__(self, client: docker.DockerClient, images: Images, size_mb: int) -> None:
        self.name = f"headroom-delivery-{uuid.uuid4().hex[:8]}"
        self.path = f"/models/{MODEL_ID}"
        options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={size_mb}m,uid=1000,gid=1000"}
        self._volume = client.volumes.create(self.name, driver="local", driver_opts=options)
        self._keeper = client.containers.run(
            images.model,
            ["-c", "import signal; signal.signal(15, lambda *_: exit()); signal.pause()"],
            entrypoint="python",
            volumes={self.name: {"bind": "/models"}},
            detach=True,
        )

    def sh(self, script: str) -> str:
        """Return the output of a shell script that runs beside the volume; fails when the script does."""
        code, output = self._keeper.exec_run(["sh", "-ec", script])
        text = cast("bytes", output).decode()
        assert code == 0, text
        return text

    def ready(self) -> bool:
        """Return whether anything on the volume is marked complete, or could be served."""
        found = self.sh(f"find /models -name READY; if [ -e {self.path} ] || [ -L {self.path} ]; then echo link; fi")
        return bool(found.strip())

    def stored_bytes(self) -> int:
        """Return the bytes of weights on the volume, half-written files too."""
        weights = "-ignore_readdir_race -name '*.safetensors*' ! -name '*.json*' -printf '%s\\n'"
        sizes = self.sh(f"if [ -d /models/.store ]; then find /models/.store {weights}; fi")
        return sum(map(int, sizes.split()))

    def weights_size(self) -> int:
        """Return the bytes of weights of a whole model, by its manifest."""
        return sum(file["size"] for file in self.manifest()["files"] if file["path"].endswith(".safetensors"))

    def manifest(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.sh(f"cat {self.path}/manifest.json"))
        return document

    def assert_whole(self, source: str = "modelscope") -> None:
        """Assert that READY is there and every byte is as in the manifest, by a tool that is not ours."""
        manifest = self.manifest()
        assert (manifest["source"], manifest["id"]) == (source, MODEL_ID)
        assert len(manifest["files"]) == 12
        sums = "\n".join(f"{file['sha256']}  {file['path']}" for file in manifest["files"])
        self.sh(f"cd {self.path}; test -f READY; sha256sum --quiet --strict -c <<'EOF'\n{sums}\nEOF")
        assert not self.sh("find /models -name '*.incomplete'")

    def remove(self) -> None:
        self._keeper.remove(force=True)
        self._volume.remove(force=True)


@dataclass
class Model:
    """Starts model containers as compose.yaml does."""

    client: docker.DockerClient
    images: Images
    hub: Hub
    started: list[Container]

    def start(
        self,
        volume: Volume,
        *command: str,
        offline: bool = False,
        mode: str = "rw",
        mounts: dict[str, dict[str, str]] | None = None,
        **environment: str,
    ) -> Container:
        address = f"http://{self.hub.ip}:8080"
        settings = {"MODEL_ID": MODEL_ID, "MODELSCOPE_ENDPOINT": address, "HF_ENDPOINT": address}
        container: Container = self.client.containers.run(
            self.images.model,
            list(command),
            detach=True,
            network="none" if offline else self.hub.network,
            environment=settings | environment,
            volumes={volume.name: {"bind": "/models", "mode": mode}, **(mounts or {})},
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        )
        self.started.append(container)
        return container

    def finish(self, container: Container) -> Run:
        code = container.wait(timeout=120)["StatusCode"]
        container.reload()
        state = container.attrs["State"]
        seconds = seconds_of(state["FinishedAt"]) - seconds_of(state["StartedAt"])
        return Run(code, container.logs().decode(), seconds)

    def run(self, volume: Volume, *command: str, **options: Any) -> Run:
        return self.finish(self.start(volume, *command, **options))

    def remove(self) -> None:
        for container in self.started:
            container.remove(force=True)


def health(container: Container) -> str:
    container.reload()
    return str(container.health)


def start_hub(client: docker.DockerClient, images: Images, network: str, models: str, **environment: str) -> Hub:
    container = client.containers.run(
        images.hub,
        detach=True,
        network=network,
        environment={"HUB_FAULTS": "1", **environment},
        volumes={models: {"bind": "/hub", "mode": "ro"}},
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
    )
    wait_until("the hub is healthy", lambda: health(container) == "healthy", 60)
    return Hub(container, network)


def wait_until(what: str, probe: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not probe():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.05)


def seconds_of(stamp: str) -> float:
    """Return seconds since some midnight, of one of Docker's time stamps; good for differences below a day."""
    hours, minutes, seconds = stamp[11:].rstrip("Z").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
