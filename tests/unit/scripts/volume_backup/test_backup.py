"""Volumes, pauses and failures of a backup, with a fake Docker."""

from __future__ import annotations

import errno
import json
import stat
from typing import TYPE_CHECKING, Any

import compose_project
import pytest
from volume_backup import backup

if TYPE_CHECKING:
    from pathlib import Path

OWN = ["prometheus", "locust", "grafana"]
OWN_VOLUMES = ["prometheus-data", "reports", "grafana-data"]


def running_container(service: str) -> dict[str, Any]:
    return {"Config": {"Labels": {compose_project.SERVICE_LABEL: service}}, "State": {"Status": "running"}}


class Docker:
    """A fake Docker: its answers, and the commands that it was given."""

    def __init__(self) -> None:
        self.on = list(OWN)
        self.off = ["alertmanager"]  # its profile is off
        self.volumes = [*OWN_VOLUMES, "alertmanager-data"]
        self.there = list(OWN_VOLUMES)
        self.running = list(OWN)
        self.asked: list[tuple[str, ...]] = []
        self.fails: dict[str, BaseException] = {}

    def __call__(self, *args: str, timeout_s: float = 0) -> str:
        del timeout_s
        words = tuple(word for word in args if word not in {"compose", "--profile", "*"})
        if words[0] == "config":
            chosen = [*self.on, *self.off] if "--profile" in args else self.on
            services = {name: {"image": "image"} for name in chosen}
            volumes = {name: {"name": name} for name in self.volumes}
            return json.dumps({"name": "test", "services": services, "volumes": volumes})
        if words[0] == "ps":
            return "\n".join(self.running)
        if words[0] == "inspect":
            return json.dumps([running_container(service) for service in words[1:]])
        if words[0] == "volume":
            if words[-1] not in self.there:
                raise backup.DockerError("no such volume")
            return ""
        self.asked.append(words)
        if words[0] in self.fails:
            raise self.fails[words[0]]
        return ""

    def switch_on(self, service: str) -> None:
        """Switch a service on, with its volume and its container."""
        self.on.append(service)
        self.running.append(service)
        self.there.append(f"{service}-data")
        self.volumes.append(f"{service}-data")


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Docker:
    """A running stack without the edge and without alerting."""
    played = Docker()
    monkeypatch.setattr(compose_project, "docker", played)
    monkeypatch.setattr(
        backup.ProjectVolumes,
        "container_command",
        lambda _, spec, command: ["printf", "%s", f"{spec.volume} {command}"],
    )
    return played


def save(folder: Path) -> list[str]:
    """Save, and return the volumes in the backup."""
    backup.save(backup.ProjectVolumes(), folder)
    manifest: dict[str, Any] = json.loads((folder / backup.MANIFEST).read_text())
    return list(manifest["volumes"])


def test_optional_services_may_be_absent(docker: Docker, tmp_path: Path) -> None:
    assert save(tmp_path / "saved") == OWN_VOLUMES
    backup.restore(backup.ProjectVolumes(), tmp_path / "saved", replace=True)
    assert [words for words in docker.asked if words[0] != "create"] == [
        ("stop", "prometheus", "grafana"),
        ("restart", "prometheus", "grafana"),
    ] * 2


def test_edge_is_saved_without_a_pause(docker: Docker, tmp_path: Path) -> None:
    docker.switch_on("alertmanager")
    docker.switch_on("edge")
    assert save(tmp_path / "saved") == [*OWN_VOLUMES, "alertmanager-data", "edge-data"]
    assert docker.asked[0] == ("stop", "prometheus", "grafana", "alertmanager")
    docker.asked.clear()
    backup.restore(backup.ProjectVolumes(), tmp_path / "saved", replace=True)
    assert ("stop", "prometheus", "grafana", "alertmanager", "edge") in docker.asked


def test_copies_are_private(docker: Docker, tmp_path: Path) -> None:
    docker.switch_on("edge")
    save(tmp_path / "saved")
    copies = list((tmp_path / "saved").glob("*.tar.gz"))
    assert len(copies) == 4
    assert {stat.S_IMODE(copy.stat().st_mode) for copy in copies} == {0o600}


def test_unwritable_folder_pauses_nothing(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(backup.BackupError, match=r"file/saved cannot be written \(Not a directory\)"):
        save(tmp_path / "file" / "saved")
    (tmp_path / "killed.part").mkdir()
    with pytest.raises(backup.BackupError, match=r"killed\.part is there already: delete it"):
        save(tmp_path / "killed")
    assert docker.asked == []


def test_full_disk_leaves_nothing(docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(backup, "_save_one", full)
    with pytest.raises(backup.BackupError, match=r"\(No space left on device\): make room"):
        save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []
    assert docker.asked[-1][0] == "restart"


def test_disabled_services_are_not_restored(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.switch_on("alertmanager")
    docker.switch_on("edge")
    save(tmp_path / "saved")
    other = Docker()
    # The volume exists but was never mounted: `create --profile '*'` made it, with no owner.
    other.there = ["prometheus-data", "alertmanager-data"]
    monkeypatch.setattr(compose_project, "docker", other)
    capsys.readouterr()
    backup.restore(backup.ProjectVolumes(), tmp_path / "saved", replace=True)
    assert other.asked[0] == ("create", "--no-recreate", *OWN)
    said = capsys.readouterr().out
    assert "edge-data: left out, edge is off here" in said
    assert "alertmanager-data: left out, alertmanager is off here" in said
    assert [volume for volume in backup.VOLUMES if f"{volume.volume}: 0.0 MB restored" in said] == list(
        backup.VOLUMES[:3]
    )


def test_unrelated_backup_is_refused(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / backup.MANIFEST).write_text('{"volumes": {}}')
    with pytest.raises(backup.BackupError, match="holds nothing for this stack"):
        backup.restore(backup.ProjectVolumes(), tmp_path, replace=True)
    assert docker.asked == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), backup.DockerError("no answer within 60 s")])
def test_interrupted_stop_restarts_services(docker: Docker, tmp_path: Path, failure: BaseException) -> None:
    docker.fails["stop"] = failure
    with pytest.raises(type(failure)):
        save(tmp_path / "saved")
    assert docker.asked[-1] == ("restart", "prometheus", "grafana")
    assert list(tmp_path.iterdir()) == []


def test_failed_restart_keeps_the_copy(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.fails["restart"] = backup.DockerError("no answer within 60 s")
    monkeypatch.setattr("sys.argv", ["backup", "save", str(tmp_path / "saved")])
    assert backup.main() == 1
    said = capsys.readouterr()
    assert f"saved in {tmp_path / 'saved'}" in said.out
    [line] = said.err.splitlines()
    assert "prometheus, grafana may be stopped still (no answer within 60 s)" in line
    assert list(backup._verified(tmp_path / "saved")) == OWN_VOLUMES


def test_both_failures_are_reported(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.fails["restart"] = backup.DockerError("no answer within 60 s")
    monkeypatch.setattr(
        backup.ProjectVolumes, "container_command", lambda *_: ["sh", "-c", "echo disk is full >&2; exit 1"]
    )
    monkeypatch.setattr("sys.argv", ["backup", "save", str(tmp_path / "saved")])
    assert backup.main() == 1
    stopped, failed = capsys.readouterr().err.splitlines()
    assert "may be stopped still" in stopped
    assert "disk is full" in failed
    assert list(tmp_path.iterdir()) == []
