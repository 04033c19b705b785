"""Metrics of a download for Prometheus: progress and failure, without waiting for an absent Prometheus."""

import threading
import time
import urllib.request
from pathlib import Path

import pytest
from delivery import download_metrics
from delivery.download_progress import DownloadProgress
from delivery.listing import RemoteFile

from tests.rig.running_stack import ROOT, free_ports, wait_for


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def progress(tmp_path: Path) -> DownloadProgress:
    (tmp_path / "a").write_bytes(bytes(1000))
    return DownloadProgress(tmp_path, (RemoteFile("a", 4000),), reads=lambda: 0)


def read(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {line.split("{")[0]: float(line.split()[-1]) for line in lines if not line.startswith("#")}


def test_page_shows_progress(progress: DownloadProgress, port: int) -> None:
    with download_metrics.published("Qwen/Q", progress, port):
        assert read(port) == {
            "model_download_bytes": 1000,
            "model_download_size_bytes": 4000,
            "model_download_failed_timestamp_seconds": 0,
        }
    with pytest.raises(OSError, match="refused"):
        read(port)


def test_failure_stays_until_scraped(progress: DownloadProgress, port: int) -> None:
    seen: dict[str, float] = {}

    def prometheus() -> None:
        read(port)  # it has scraped before, so it will again
        began.set()
        seen.update(wait_for("the failure", lambda: (page := read(port))[FAILED] and page, timeout_s=10))

    began, reader = threading.Event(), threading.Thread(target=prometheus)
    with pytest.raises(ValueError, match="cut"), download_metrics.published("Qwen/Q", progress, port):  # noqa: PT012
        reader.start()
        began.wait(5)
        raise ValueError("cut")
    reader.join(10)
    assert abs(seen[FAILED] - time.time()) < 10


def test_failure_without_reader_ends_at_once(progress: DownloadProgress, port: int) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match="cut"), download_metrics.published("Qwen/Q", progress, port):
        raise ValueError("cut")
    assert time.monotonic() - start < download_metrics._KEEP_S / 2


def test_taken_port_does_not_stop_download(
    progress: DownloadProgress, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with download_metrics.published("Qwen/Q", progress, port), download_metrics.published("Qwen/Q", progress, port):
        assert read(port)["model_download_bytes"] == 1000
    assert capsys.readouterr().err.startswith(f"no metrics on port {port}: ")


def test_prometheus_scrapes_the_page() -> None:
    assert (
        f"names: [model], type: A, port: {download_metrics.PORT}"
        in (ROOT / "docker/prometheus/prometheus.yml").read_text()
    )


FAILED = "model_download_failed_timestamp_seconds"
