from pathlib import Path

from delivery.download_progress import DownloadProgress, bytes_read
from delivery.listing import RemoteFile

FILES = (RemoteFile("a", 1_000_000), RemoteFile("b", 3_000_000))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_line_has_share_rate_and_time_left(tmp_path: Path) -> None:
    clock = Clock()
    progress = DownloadProgress(tmp_path, FILES, clock, lambda: 0)
    (tmp_path / "a").write_bytes(bytes(1_000_000))
    (tmp_path / "b.incomplete").write_bytes(bytes(1_000_000))
    clock.now += 4
    progress.update()
    # 2 MB in 4 s are 0.5 MB/s: the other 2 MB take 4 s more.
    assert progress.line() == " 50.0 %  2.0 MB of 4.0 MB  0.5 MB/s  4 s left  1 of 2 files"


def test_rate_excludes_earlier_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1_000_000))
    clock = Clock()
    progress = DownloadProgress(tmp_path, FILES, clock, lambda: 0)
    clock.now += 1
    progress.update()
    assert "nothing new for 1 s" in progress.line()
    assert progress.summary().startswith("0.0 MB")


def test_stall_time_counts_from_progress(tmp_path: Path) -> None:
    clock = Clock()
    progress = DownloadProgress(tmp_path, FILES, clock, lambda: 0)
    (tmp_path / "a").write_bytes(bytes(100_000))
    clock.now += 200
    progress.update()
    assert progress.stalled_s == 0, "slow, but it moves"
    clock.now += 50
    progress.update()
    assert progress.stalled_s == 50


def test_single_bytes_are_no_progress(tmp_path: Path) -> None:
    clock = Clock()
    progress = DownloadProgress(tmp_path, FILES, clock, lambda: 0)
    for count in range(1, 11):
        (tmp_path / "a").write_bytes(bytes(count))
        clock.now += 30
        progress.update()
    assert progress.stalled_s == 300


def test_restarted_file_counts_from_zero(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "a.incomplete").write_bytes(bytes(900_000))
    progress = DownloadProgress(tmp_path, FILES, clock, lambda: 0)
    (tmp_path / "a.incomplete").write_bytes(b"")
    clock.now += 10
    progress.update()
    assert progress.stalled_s == 10
    (tmp_path / "a.incomplete").write_bytes(bytes(100_000))
    clock.now += 10
    progress.update()
    assert progress.stalled_s == 0


def test_comparing_files_is_no_stall(tmp_path: Path) -> None:
    clock, read = Clock(), [0]
    (tmp_path / "a").write_bytes(bytes(1_000_000))
    progress = DownloadProgress(tmp_path, FILES, clock, lambda: read[0])
    for _ in range(10):
        clock.now += 60
        read[0] += 1_000_000
        progress.update()
        assert progress.stalled_s == 0
    assert "comparing what is there" in progress.line()


def test_bytes_read_counts_file_reads(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1_000_000))
    before = bytes_read()
    (tmp_path / "a").read_bytes()
    assert bytes_read() - before >= 1_000_000
