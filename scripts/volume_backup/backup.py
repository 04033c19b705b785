"""The half of scripts/backup that runs here: which volumes, whom to pause, and where the copies lie."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compose_project import DockerError, docker
from repository import ROOT
from volume_backup.volume_archive import NOT_EMPTY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MANIFEST = "manifest.json"
_BLOCK = 1 << 20
_LINE_EVERY_S = 5.0


class BackupError(Exception):
    """One line: what is wrong and how to fix it."""


@dataclass(frozen=True)
class VolumeSpec:
    """A volume that is worth keeping: its key in the compose files, its owner and service, and when that must pause."""

    volume: str
    user: str
    service: str
    pauses_to_save: bool
    pauses_to_restore: bool


VOLUMES = (
    VolumeSpec("prometheus-data", "65534:65534", "prometheus", pauses_to_save=True, pauses_to_restore=True),
    VolumeSpec("reports", "1000:1000", "locust", pauses_to_save=False, pauses_to_restore=False),
    VolumeSpec("grafana-data", "472:0", "grafana", pauses_to_save=True, pauses_to_restore=True),
    # Writes its silences to the disk when it stops, else every 15 minutes.
    VolumeSpec("alertmanager-data", "65534:65534", "alertmanager", pauses_to_save=True, pauses_to_restore=True),
    # Certificates, and the key of the authority that clients trust. Nobody's request waits for a copy of them.
    VolumeSpec("edge-data", "1000:1000", "edge", pauses_to_save=False, pauses_to_restore=True),
)


class ProjectVolumes:
    """The project that Compose finds here."""

    def __init__(self) -> None:
        """Read it. Raises DockerError."""
        self.model: dict[str, Any] = json.loads(docker("compose", "--profile", "*", "config", "--format", "json"))
        self.image = self.model["services"]["locust"]["image"]
        self.all_run_again = True

    def name(self, kept: VolumeSpec) -> str:
        """The volume's name in Docker."""
        return str(self.model["volumes"][kept.volume]["name"])

    def has(self, kept: VolumeSpec) -> bool:
        """Whether the volume is there, and of this stack: that of a layer which is not chosen is not."""
        if kept.volume not in self.model["volumes"]:
            return False
        try:
            docker("volume", "inspect", self.name(kept))
        except DockerError:
            return False
        return True

    def inside(self, kept: VolumeSpec, command: str) -> list[str]:
        """The command line that works on a volume as its owner, with no network and no rights."""
        return [
            *("docker", "run", "--rm", "--interactive", "--network", "none", "--read-only", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "--log-driver", "none", "--user", kept.user),
            *("--volume", f"{self.name(kept)}:/volume", "--volume", f"{ROOT}/scripts/volume_backup:/backup:ro"),
            *("--entrypoint", "python3", self.image, "/backup/volume_archive.py", command),
        ]

    def services_on(self) -> set[str]:
        """What is switched on: by .env, or by an option of the command that made its container."""
        made = docker("compose", "--profile", "*", "ps", "--all", "--services")
        return {*docker("compose", "config", "--services").split(), *made.split()}

    @contextmanager
    def paused(self, services: Sequence[str]) -> Iterator[None]:
        """Stop those of the services that run, and start them again, whatever happens."""
        compose = ("compose", "--profile", "*")
        running = docker(*compose, "ps", "--services", "--status", "running").split()
        services = [service for service in services if service in running]
        begun = time.monotonic()
        try:
            if services:
                docker(*compose, "stop", *services)
            yield
        finally:
            if services:
                self._start_again(services, begun)

    def _start_again(self, services: Sequence[str], begun: float) -> None:
        """Raises nothing: what was saved or restored by then stays so, and what failed before is to be told too."""
        try:
            # Not `start`, which passes over what runs: Docker may still be at a stop that was cut short.
            docker("compose", "--profile", "*", "restart", *services)
        except DockerError as error:
            self.all_run_again = False
            fix = f"docker compose --profile '*' restart {' '.join(services)}"
            print(f"backup: {', '.join(services)} may be stopped still ({error}): {fix}", file=sys.stderr)
        else:
            print(f"{', '.join(services)} paused for {time.monotonic() - begun:.0f} s", flush=True)


def save(stack: ProjectVolumes, folder: Path) -> None:
    """Copy every volume that is there into a new folder. Raises BackupError or DockerError; leaves no half of one."""
    chosen = [kept for kept in VOLUMES if stack.has(kept)]
    if not chosen:
        raise BackupError("nothing to save: this project has no volume yet; look at COMPOSE_PROJECT_NAME")
    if folder.exists():
        raise BackupError(f"{folder} is there already: name another folder")
    part = folder.with_name(folder.name + ".part")
    try:
        part.mkdir(parents=True)
    except FileExistsError:
        raise BackupError(f"{part} is there already: delete it, unless another save is under way") from None
    except OSError as error:
        raise _cannot_write(folder, error) from None
    try:
        with stack.paused([kept.service for kept in chosen if kept.pauses_to_save]):
            volumes = {kept.volume: _save_one(stack, kept, part) for kept in chosen}
            images = {name: service["image"] for name, service in stack.model["services"].items()}
            manifest = {"created": _now(), "project": stack.model["name"], "images": images, "volumes": volumes}
            (part / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
            # Here already: a copy that is whole is kept, whatever becomes of the services.
            part.rename(folder)
            print(f"saved in {folder}", flush=True)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError):
            raise _cannot_write(folder, error) from None
        raise


def _cannot_write(folder: Path, error: OSError) -> BackupError:
    return BackupError(f"{folder} cannot be written ({error.strerror}): make room, or name another folder")


def _save_one(stack: ProjectVolumes, kept: VolumeSpec, folder: Path) -> dict[str, Any]:
    digest, size, shown = hashlib.sha256(), 0, time.monotonic()
    target = folder / f"{kept.volume}.tar.gz"
    target.touch(mode=0o600)  # the edge's holds a private key, Grafana's the users' passwords
    with (
        subprocess.Popen(  # noqa: S603  # our own arguments
            stack.inside(kept, "save"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as copy,
        target.open("wb") as file,
    ):
        assert copy.stdout is not None and copy.stderr is not None  # noqa: S101, PT018  # for the type checker
        while block := copy.stdout.read(_BLOCK):
            file.write(block)
            digest.update(block)
            size += len(block)
            if time.monotonic() - shown > _LINE_EVERY_S:
                shown = time.monotonic()
                print(f"{kept.volume}: {size / 1e6:.0f} MB", flush=True)
        said = copy.stderr.read().decode(errors="replace").strip()
    if copy.returncode:
        raise BackupError(f"{kept.volume} cannot be copied: {said.splitlines()[-1] if said else copy.returncode}")
    print(f"{kept.volume}: {size / 1e6:.1f} MB", flush=True)
    return {"bytes": size, "sha256": digest.hexdigest()}


def restore(stack: ProjectVolumes, folder: Path, *, replace: bool) -> None:
    """Bring every volume of a backup back. Raises BackupError or DockerError before anything is changed."""
    volumes = _verified(folder)
    chosen = [kept for kept in VOLUMES if kept.volume in volumes]
    on = stack.services_on()
    present = [kept for kept in chosen if kept.service in on]
    for kept in chosen:
        if kept not in present:
            print(f"{kept.volume}: left out, {kept.service} is off here (COMPOSE_FILE, COMPOSE_PROFILES)", flush=True)
    if not present:
        raise BackupError(f"{folder} holds nothing for this stack: look at COMPOSE_FILE")
    # A volume takes its owner from its own service's image, so that must be the first to mount it. All of them: Compose
    # makes volumes of services too that have no container yet.
    services = [kept.service for kept in present]
    docker("compose", "--profile", "*", "create", "--no-recreate", *services, timeout_s=600)
    with stack.paused([kept.service for kept in present if kept.pauses_to_restore]):
        if not replace:
            _require_empty(stack, present)
        for kept in present:
            with (folder / f"{kept.volume}.tar.gz").open("rb") as file:
                done = subprocess.run(  # noqa: S603  # our own arguments
                    stack.inside(kept, "restore"), stdin=file, capture_output=True, text=True, check=False
                )
            if done.returncode:
                raise BackupError(f"{kept.volume} cannot be restored, it is as it was: {done.stderr.strip()}")
            print(f"{kept.volume}: {volumes[kept.volume]['bytes'] / 1e6:.1f} MB restored", flush=True)


def _require_empty(stack: ProjectVolumes, chosen: Sequence[VolumeSpec]) -> None:
    for kept in chosen:
        code = subprocess.run(stack.inside(kept, "check"), capture_output=True, check=False).returncode  # noqa: S603
        if code == NOT_EMPTY:
            raise BackupError(f"{kept.volume} is not empty: --replace deletes what is in it")
        if code:
            raise BackupError(f"{kept.volume} cannot be looked at: is the image {stack.image} built?")


def _verified(folder: Path) -> dict[str, Any]:
    """The manifest's volumes, once every byte was compared."""
    try:
        volumes: dict[str, Any] = json.loads((folder / MANIFEST).read_text())["volumes"]
        for name, about in volumes.items():
            digest = hashlib.sha256()
            with (folder / f"{name}.tar.gz").open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
            if digest.hexdigest() != about["sha256"]:
                raise BackupError(f"{folder}/{name}.tar.gz is damaged: use another backup")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupError(f"{folder} is no backup ({error}): name a folder that `scripts/backup save` made") from None
    return volumes


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%M%SZ")  # noqa: UP017  # Python 3.9 has no datetime.UTC


def main() -> int:
    """Exit code: 0 when all is done, 1 with one line on standard error for each thing that is not."""
    parser = argparse.ArgumentParser(
        prog="scripts/backup", description="Save metrics, reports, users and certificates."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    save_parser = commands.add_parser("save", help="copy the volumes; Prometheus and Grafana pause meanwhile")
    save_parser.add_argument("folder", nargs="?", type=Path, help="default: backups/<time>")
    restore_parser = commands.add_parser("restore", help="bring the volumes of a backup back")
    restore_parser.add_argument("folder", type=Path)
    restore_parser.add_argument("--replace", action="store_true", help="delete what is in the volumes now")
    args = parser.parse_args()
    try:
        stack = ProjectVolumes()
        if args.command == "save":
            save(stack, args.folder or ROOT / "backups" / _now())
        else:
            restore(stack, args.folder, replace=args.replace)
    except (BackupError, DockerError) as error:
        print(f"backup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("backup: stopped", file=sys.stderr)
        return 130
    return 0 if stack.all_run_again else 1
