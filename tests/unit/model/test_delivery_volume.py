import fcntl
from pathlib import Path

import pytest
from delivery import listing, volume
from delivery.listing import RemoteFile
from delivery.manifest import FileRecord, Manifest, read_ready, unready, write_ready
from delivery.settings import DeliveryError, Settings, read


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_for(tmp_path, "feature/x")


def settings_for(root: Path, revision: str) -> Settings:
    return read({"MODEL_ID": "owner/name", "MODEL_REVISION": revision, "MODEL_VOLUME": str(root)})


def deliver(settings: Settings, content: bytes = b"weights") -> Path:
    folder = volume.folder_of(settings)
    folder.mkdir(parents=True)
    (folder / "w.safetensors").write_bytes(content)
    record = FileRecord("w.safetensors", len(content), "00")
    write_ready(folder, Manifest("modelscope", "owner/name", "feature/x", (record,), allow=("*",)))
    return folder


def test_manifest_round_trip(settings: Settings) -> None:
    manifest = read_ready(deliver(settings))
    assert manifest is not None
    assert manifest.files == (FileRecord("w.safetensors", 7, "00"),)
    assert (manifest.size, manifest.allow, manifest.ignore) == (7, ("*",), ())


def test_folder_without_ready_is_incomplete(settings: Settings) -> None:
    folder = deliver(settings)
    unready(folder)
    assert read_ready(folder) is None


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest", "ready"])
def test_damaged_folder_is_incomplete(settings: Settings, damage: str) -> None:
    folder = deliver(settings)
    match damage:
        case "truncate":
            (folder / "w.safetensors").write_bytes(b"weight")
        case "remove":
            (folder / "w.safetensors").unlink()
        case "manifest":
            manifest = folder / listing.MANIFEST
            manifest.write_text(manifest.read_text().replace("owner", "other"))
        case "ready":
            (folder / listing.READY).write_text("")
    assert read_ready(folder) is None


def test_link_moves_between_revisions(settings: Settings) -> None:
    deliver(settings)
    volume.link(settings)
    link = settings.volume / "owner/name"
    assert not link.readlink().is_absolute(), "the engine mounts the volume elsewhere"
    assert (link / "w.safetensors").read_bytes() == b"weights"
    other = settings_for(settings.volume, "v2")
    deliver(other, b"newer")
    volume.link(other)
    assert (link / "w.safetensors").read_bytes() == b"newer"
    assert read_ready(volume.folder_of(settings)) is not None, "the old revision stays"


def test_link_keeps_foreign_folder(settings: Settings) -> None:
    foreign = settings.volume / "owner/name"
    foreign.mkdir(parents=True)
    (foreign / "mine").touch()
    deliver(settings)
    with pytest.raises(DeliveryError, match="move it away"):
        volume.link(settings)
    assert (foreign / "mine").exists()


def test_sweep_keeps_listed_files(settings: Settings) -> None:
    folder = deliver(settings)
    for name in ("w2.safetensors.incomplete", "old.bin", "x.1f2e.incomplete"):
        (folder / name).touch()
    volume.sweep(folder, [RemoteFile("w.safetensors", 7), RemoteFile("w2.safetensors", 9)])
    assert sorted(path.name for path in folder.iterdir()) == ["w.safetensors", "w2.safetensors.incomplete"]


def test_missing_space_names_both_sizes(tmp_path: Path) -> None:
    free = volume.free_bytes(tmp_path)
    with pytest.raises(DeliveryError, match=r"GB free, .* GB needed for the missing"):
        volume.require_space(tmp_path, missing=free)


def test_nothing_missing_needs_no_space(tmp_path: Path) -> None:
    volume.require_space(tmp_path, missing=0)
    assert volume.margin(0) == 0


def test_lock_admits_one_process(tmp_path: Path) -> None:
    said: list[str] = []
    with (
        volume.locked(tmp_path, said.append),
        (tmp_path / ".lock").open() as second,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert said == []
    with volume.locked(tmp_path, said.append):
        pass


@pytest.mark.parametrize(("missing", "margin"), [(1, 32_000_000), (10_000_000_000, 100_000_000)])
def test_margin_grows_with_the_download(missing: int, margin: int) -> None:
    assert volume.margin(missing) == margin
