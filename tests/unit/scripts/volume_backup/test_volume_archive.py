"""A volume to and from a stream: complete, all or nothing, inside the volume."""

from __future__ import annotations

import fcntl
import io
import tarfile
import zlib
from random import Random
from typing import TYPE_CHECKING

import pytest
from volume_backup import volume_archive

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A small Prometheus volume."""
    folder = tmp_path / "volume"
    (folder / "01BLOCK" / "chunks").mkdir(parents=True)
    # Random bytes: with repetitive ones a wrong byte in the stream may decompress to the same.
    (folder / "01BLOCK" / "chunks" / "000001").write_bytes(Random(1).randbytes(4000))  # noqa: S311  # no secret
    (folder / "wal").mkdir()
    (folder / "wal" / "00000000").write_bytes(b"wal")
    (folder / "lock").touch()
    (folder / "queries.active").write_text("now")
    return folder


def saved(volume: Path) -> bytes:
    out = io.BytesIO()
    volume_archive.save(volume, out)
    return out.getvalue()


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_archive_round_trip(volume: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "newer").write_text("deleted")
    volume_archive.restore(other, io.BytesIO(saved(volume)))
    wanted = content(volume)
    del wanted["lock"], wanted["queries.active"]
    assert content(other) == wanted


def test_open_database_is_refused(volume: Path) -> None:
    stream = saved(volume)
    with (volume / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(volume_archive.CopyError, match="stop it first"):
            volume_archive.save(volume, io.BytesIO())
        with pytest.raises(volume_archive.CopyError, match="stop it first"):
            volume_archive.restore(volume, io.BytesIO(stream))


def test_truncated_stream_changes_nothing(volume: Path) -> None:
    before = content(volume)
    stream = saved(volume)
    for end in range(0, len(stream), 7):
        with pytest.raises((tarfile.TarError, EOFError, zlib.error)):
            volume_archive.restore(volume, io.BytesIO(stream[:end]))
        assert content(volume) == before


def test_corrupt_stream_changes_nothing(volume: Path) -> None:
    before = content(volume)
    stream = bytearray(saved(volume))
    stream[len(stream) // 2] ^= 1
    with pytest.raises((tarfile.TarError, EOFError, OSError, zlib.error)):
        volume_archive.restore(volume, io.BytesIO(bytes(stream)))
    assert content(volume) == before


def test_hostile_archive_changes_nothing(volume: Path) -> None:
    before = content(volume)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        member = tarfile.TarInfo("../outside")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    stream.seek(0)
    with pytest.raises(tarfile.TarError):
        volume_archive.restore(volume, stream)
    assert content(volume) == before
    assert not (volume.parent / "outside").exists()


def test_empty_and_full_volumes_differ(volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_archive, "VOLUME", volume)
    assert volume_archive.main(["check"]) == volume_archive.NOT_EMPTY
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "lock").touch()
    (fresh / "caddy").mkdir()  # of the image
    monkeypatch.setattr(volume_archive, "VOLUME", fresh)
    assert volume_archive.main(["check"]) == 0
