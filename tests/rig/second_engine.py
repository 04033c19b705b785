"""A Docker engine of the tests' own: a swarm must not be made of an engine that runs other people's containers.

It lives in a network namespace of its own, so that its bridges and firewall rules meet nobody else's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

START_TIMEOUT_S = 60


class Engine:
    """The engine that answers at `socket`."""

    def __init__(self, socket: Path) -> None:
        self.host = f"unix://{socket}"

    def docker(self, *args: str, check: bool = True, env: Mapping[str, str] | None = None) -> str:
        """Return the output of `docker ARGS`."""
        done = subprocess.run(
            ["docker", "--host", self.host, *args],
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not (check and done.returncode), f"docker {' '.join(args)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def load(self, *images: str) -> None:
        """Copy images of the usual engine here."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as save:
            subprocess.run(["docker", "--host", self.host, "load", "--quiet"], stdin=save.stdout, check=True)
        assert save.returncode == 0

    def containers(self, service: str) -> list[str]:
        """Return ids of the running containers of a service of the stack, the newest first."""
        return self.docker("ps", "--quiet", "--filter", f"label=com.docker.swarm.service.name={service}").split()

    def python(self, service: str, code: str) -> str:
        """Return the output of Python `code` in a container of the service."""
        return self.docker("exec", self.containers(service)[0], "python3", "-c", code)

    def inspect(self, kind: str, name: str, template: str) -> object:
        """Return a field of `docker inspect`."""
        answer: object = json.loads(self.docker(kind, "inspect", "--format", f"{{{{json {template}}}}}", name))
        return answer


@contextlib.contextmanager
def second_engine() -> Iterator[Engine]:
    """Start an empty engine; stop it and delete its data afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="headroom-swarm-"))
    # In memory: deleting half a million small files from a disk takes longer than the tests.
    (folder / "data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=14g", "headroom-swarm", f"{folder}/data"], check=True)
    dockerd = [
        *("dockerd", "--host", f"unix://{folder}/sock", "--pidfile", f"{folder}/pid"),
        *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--cgroup-parent", folder.name),
    ]
    script = f"ip link set lo up && exec {' '.join(dockerd)}"
    log = (folder / "log").open("w")
    process = subprocess.Popen(["unshare", "--net", "sh", "-c", script], stdout=log, stderr=log)
    engine = Engine(folder / "sock")
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not engine.docker("version", "--format", "{{.Server.Version}}", check=False):
            tail = (folder / "log").read_text()[-2000:]
            assert process.poll() is None, f"dockerd ended: {tail}"
            assert time.monotonic() < deadline, f"dockerd does not answer: {tail}"
            time.sleep(0.5)
        yield engine
    finally:
        if process.poll() is None:
            engine.docker("swarm", "leave", "--force", check=False)
            process.terminate()
            process.wait(timeout=60)
        log.close()
        for mounted in sorted(_mounts_below(folder), reverse=True):
            subprocess.run(["umount", "--lazy", mounted], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _mounts_below(folder: Path) -> list[str]:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [mount for mount in mounts if mount.startswith(f"{folder}/")]
