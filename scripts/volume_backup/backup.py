"""Saves and restores volumes: which ones, services to pause, and the folder of copies."""

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

import compose_project
from compose_project import DockerError, compose
from repository import ROOT
from volume_backup.volume_archive import NOT_EMPTY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MANIFEST = "manifest.json"
_BLOCK = 1 << 20
_LINE_EVERY_S = 5.0


class BackupError(Exception):
    """A failed save or restore; the message is one line with problem and fix."""


@dataclass(frozen=True)
class VolumeSpec:
    """A volume to save: its key in the compose files, its owner and service, and when that must pause."""

    volume: str
    user: str
    service: str
    pauses_to_save: bool
    pauses_to_restore: bool


VOLUMES = (
    VolumeSpec("prometheus-data", "65534:65534", "prometheus", pauses_to_save=True, pauses_to_restore=True),
    VolumeSpec("reports", "1000:1000", "locust", pauses_to_save=False, pauses_to_restore=False),
    VolumeSpec("grafana-data", "472:0", "grafana", pauses_to_save=True, pauses_to_restore=True),
    # Writes its silences to disk when it stops, else every 15 minutes.
    VolumeSpec("alertmanager-data", "65534:65534", "alertmanager", pauses_to_save=True, pauses_to_restore=True),
    # Certificates, and the key of the authority that clients trust. Not paused to save: users' requests pass through.
    VolumeSpec("edge-data", "1000:1000", "edge", pauses_to_save=False, pauses_to_restore=True),
)


class ProjectVolumes:
    """The project's volumes, and the services that write to them."""

    def __init__(self) -> None:
        """Read the project's settings. Raises DockerError."""
        self.model = compose_project.rendered(every_profile=True)
        self.image = self.model["services"]["locust"]["image"]
        self.all_run_again = True

    def name(self, spec: VolumeSpec) -> str:
        """The volume's name in Docker."""
        return str(self.model["volumes"][spec.volume]["name"])

    def has(self, spec: VolumeSpec) -> bool:
        """Return whether the volume exists and its layer is chosen."""
        return spec.volume in self.model["volumes"] and compose_project.has_volume(self.name(spec))

    def container_command(self, spec: VolumeSpec, command: str) -> list[str]:
        """Command line of a container that works on the volume as its owner, with no network and no capability."""
        return [
            *("docker", "run", "--rm", "--interactive", "--network", "none", "--read-only", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "--log-driver", "none", "--user", spec.user),
            *("--volume", f"{self.name(spec)}:/volume", "--volume", f"{ROOT}/scripts/volume_backup:/backup:ro"),
            *("--entrypoint", "python3", self.image, "/backup/volume_archive.py", command),
        ]

    @staticmethod
    def services_on() -> set[str]:
        """Services that are switched on: in .env, or by an option of the command that made their container."""
        made = map(compose_project.service_of, compose_project.containers())
        return {*compose_project.rendered()["services"], *made}

    @contextmanager
    def paused(self, services: Sequence[str]) -> Iterator[None]:
        """Stop those of the services that run, and start them again, whatever happens."""
        running = {
            compose_project.service_of(container)
            for container in compose_project.containers()
            if container["State"]["Status"] == "running"
        }
        services = [service for service in services if service in running]
        begun = time.monotonic()
        try:
            if services:
                compose("stop", *services, every_profile=True)
            yield
        finally:
            if services:
                self._start_again(services, begun)

    def _start_again(self, services: Sequence[str], begun: float) -> None:
        """Start the services; raises nothing, because an earlier error must be reported too."""
        try:
            # Not `start`, which skips a running service: Docker may still be at a stop that was cut short.
            compose("restart", *services, every_profile=True)
        except DockerError as error:
            self.all_run_again = False
            fix = f"docker compose --profile '*' restart {' '.join(services)}"
            print(f"backup: {', '.join(services)} may be stopped still ({error}): {fix}", file=sys.stderr)
        else:
            print(f"{', '.join(services)} paused for {time.monotonic() - begun:.0f} s", flush=True)


def save(project: ProjectVolumes, folder: Path) -> None:
    """Copy every existing volume into a new folder, or nothing. Raises BackupError or DockerError."""
    chosen = [spec for spec in VOLUMES if project.has(spec)]
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
        with project.paused([spec.service for spec in chosen if spec.pauses_to_save]):
            volumes = {spec.volume: _save_one(project, spec, part) for spec in chosen}
            images = {name: service["image"] for name, service in project.model["services"].items()}
            manifest = {"created": _now(), "project": project.model["name"], "images": images, "volumes": volumes}
            (part / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
            # Before the services start again: a whole copy is kept even if they do not.
            part.rename(folder)
            print(f"saved in {folder}", flush=True)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError):
            raise _cannot_write(folder, error) from None
        raise


def _cannot_write(folder: Path, error: OSError) -> BackupError:
    return BackupError(f"{folder} cannot be written ({error.strerror}): make room, or name another folder")


def _save_one(project: ProjectVolumes, spec: VolumeSpec, folder: Path) -> dict[str, Any]:
    digest, size, shown = hashlib.sha256(), 0, time.monotonic()
    target = folder / f"{spec.volume}.tar.gz"
    target.touch(mode=0o600)  # the edge's holds a private key, Grafana's the users' passwords
    with (
        subprocess.Popen(  # noqa: S603  # our own arguments
            project.container_command(spec, "save"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
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
                print(f"{spec.volume}: {size / 1e6:.0f} MB", flush=True)
        errors = copy.stderr.read().decode(errors="replace").strip()
    if copy.returncode:
        raise BackupError(f"{spec.volume} cannot be copied: {errors.splitlines()[-1] if errors else copy.returncode}")
    print(f"{spec.volume}: {size / 1e6:.1f} MB", flush=True)
    return {"bytes": size, "sha256": digest.hexdigest()}


def restore(project: ProjectVolumes, folder: Path, *, replace: bool) -> None:
    """Restore every volume of a backup. Raises BackupError or DockerError before anything is changed."""
    volumes = _verified(folder)
    chosen = [spec for spec in VOLUMES if spec.volume in volumes]
    on = project.services_on()
    present = [spec for spec in chosen if spec.service in on]
    for spec in chosen:
        if spec not in present:
            print(f"{spec.volume}: left out, {spec.service} is off here (COMPOSE_FILE, COMPOSE_PROFILES)", flush=True)
    if not present:
        raise BackupError(f"{folder} holds nothing for this stack: look at COMPOSE_FILE")
    # A volume takes its owner from the image of the first service that mounts it. Create all containers: Compose also
    # makes the volumes of services without one.
    services = [spec.service for spec in present]
    compose("create", "--no-recreate", *services, every_profile=True, timeout_s=600)
    with project.paused([spec.service for spec in present if spec.pauses_to_restore]):
        if not replace:
            _require_empty(project, present)
        for spec in present:
            with (folder / f"{spec.volume}.tar.gz").open("rb") as file:
                done = subprocess.run(  # noqa: S603  # our own arguments
                    project.container_command(spec, "restore"), stdin=file, capture_output=True, text=True, check=False
                )
            if done.returncode:
                raise BackupError(f"{spec.volume} cannot be restored, it is as it was: {done.stderr.strip()}")
            print(f"{spec.volume}: {volumes[spec.volume]['bytes'] / 1e6:.1f} MB restored", flush=True)


def _require_empty(project: ProjectVolumes, chosen: Sequence[VolumeSpec]) -> None:
    for spec in chosen:
        code = subprocess.run(project.container_command(spec, "check"), capture_output=True, check=False).returncode  # noqa: S603
        if code == NOT_EMPTY:
            raise BackupError(f"{spec.volume} is not empty: --replace deletes what is in it")
        if code:
            raise BackupError(f"{spec.volume} cannot be looked at: is the image {project.image} built?")


def _verified(folder: Path) -> dict[str, Any]:
    """Check every copy's digest; return the manifest's volumes."""
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
    """Run one command; return 0, or 1 with a line on standard error for each failure."""
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
        project = ProjectVolumes()
        if args.command == "save":
            save(project, args.folder or ROOT / "backups" / _now())
        else:
            restore(project, args.folder, replace=args.replace)
    except (BackupError, DockerError) as error:
        print(f"backup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("backup: stopped", file=sys.stderr)
        return 130
    return 0 if project.all_run_again else 1
