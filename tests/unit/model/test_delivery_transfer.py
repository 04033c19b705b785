import errno
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from delivery.listing import RemoteFile, TransientError
from delivery.settings import DeliveryError
from delivery.transfer import HashingFile, place, place_all

CONTENT = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FILE = RemoteFile("sub/w.bin", len(CONTENT), sha256=DIGEST)


class Writer:
    """Writes CONTENT from the file's position, and counts calls."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    def __call__(self, _file: RemoteFile, stream: HashingFile) -> None:
        self.offsets.append(stream.tell())
        stream.write(CONTENT[stream.tell() :])


def writes(content: bytes) -> Callable[[RemoteFile, HashingFile], None]:
    def write(_file: RemoteFile, stream: HashingFile) -> None:
        stream.write(content)

    return write


def test_digest_covers_old_and_new_bytes(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(CONTENT[:1000])
    with HashingFile(path) as stream:
        assert stream.tell() == 1000
        stream.write(CONTENT[1000:])
        assert stream.sha256 == DIGEST
    assert path.read_bytes() == CONTENT


def test_seek_to_start_resets_digest(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"stale")
    with HashingFile(path) as stream:
        stream.seek(0)
        stream.truncate()
        stream.write(CONTENT)
        assert stream.sha256 == DIGEST
    assert path.read_bytes() == CONTENT


def test_other_positions_are_refused(tmp_path: Path) -> None:
    with HashingFile(tmp_path / "f") as stream:
        stream.write(b"12345")
        with pytest.raises(io.UnsupportedOperation):
            stream.seek(2)


def test_partial_file_is_continued(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/w.bin.incomplete").write_bytes(CONTENT[:5000])
    writer = Writer()
    assert place(FILE, tmp_path, writer) == DIGEST
    assert writer.offsets == [5000]
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["w.bin"]


def test_correct_file_is_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/w.bin").write_bytes(CONTENT)
    writer = Writer()
    assert place(FILE, tmp_path, writer) == DIGEST
    assert writer.offsets == []


def test_wrong_byte_fetches_file_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/w.bin").write_bytes(b"?" + CONTENT[1:])
    writer = Writer()
    assert place(FILE, tmp_path, writer) == DIGEST
    assert writer.offsets == [0]
    assert "sub/w.bin" in capsys.readouterr().err


def test_small_files_use_git_digest(tmp_path: Path) -> None:
    name = hashlib.sha1(b"blob 2\0{}", usedforsecurity=False).hexdigest()
    file = RemoteFile("c.json", 2, git_sha1=name)
    place(file, tmp_path, writes(b"{}"))
    with pytest.raises(DeliveryError, match=r"d\.json"):
        place(RemoteFile("d.json", 2, git_sha1=name), tmp_path, writes(b"[]"))


def test_always_wrong_source_fails(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match=r"sub/w\.bin: the source keeps giving other bytes"):
        place(FILE, tmp_path, writes(bytes(len(CONTENT))))
    assert not (tmp_path / "sub/w.bin").exists()


def test_early_end_keeps_partial_file(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match=r"ended after 3 of"):
        place(FILE, tmp_path, writes(CONTENT[:3]))
    assert (tmp_path / "sub/w.bin.incomplete").read_bytes() == CONTENT[:3]


def test_full_volume_is_reported(tmp_path: Path) -> None:
    def write(_file: RemoteFile, _stream: HashingFile) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DeliveryError, match="the volume is full"):
        place(FILE, tmp_path, write)


def test_permanent_error_wins_over_transient(tmp_path: Path) -> None:
    def write(file: RemoteFile, _stream: HashingFile) -> None:
        raise (DeliveryError if file.path == "b" else TransientError)(file.path)

    with pytest.raises(DeliveryError, match="b"):
        place_all([RemoteFile("a", 1), RemoteFile("b", 1)], tmp_path, write, workers=2, placed={})


def test_placed_files_are_not_read_again(tmp_path: Path) -> None:
    placed: dict[str, str] = {}
    place_all([FILE], tmp_path, Writer(), workers=1, placed=placed)
    assert placed == {FILE.path: DIGEST}
    (tmp_path / FILE.path).unlink()  # only a second comparison would notice
    again = Writer()
    place_all([FILE], tmp_path, again, workers=1, placed=placed)
    assert again.offsets == []


def test_transient_error_waits_for_others(tmp_path: Path) -> None:
    def write(file: RemoteFile, stream: HashingFile) -> None:
        if file.path == "a":
            raise TransientError("a")
        stream.write(b"x")

    placed: dict[str, str] = {}
    with pytest.raises(TransientError):
        place_all([RemoteFile("a", 1), RemoteFile("b", 1)], tmp_path, write, workers=1, placed=placed)
    assert list(placed) == ["b"]
