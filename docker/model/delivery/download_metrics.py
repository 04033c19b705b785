"""Metrics page of the download for Prometheus; it exists only while files are fetched.

Prometheus finds this container by its name, so no dead target is left when it has ended. After a failure the page stays
until Prometheus has read it: otherwise no alert could fire.
"""

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .download_progress import DownloadProgress
from .log import say

PORT = 9101
_KEEP_S = 12.0  # Prometheus reads every 5 s: two chances

_PAGE = """\
# HELP model_download_bytes Bytes of the model on the volume
# TYPE model_download_bytes gauge
model_download_bytes{{model="{model}"}} {present}
# HELP model_download_size_bytes Bytes of the whole model
# TYPE model_download_size_bytes gauge
model_download_size_bytes{{model="{model}"}} {total}
# HELP model_download_failed_timestamp_seconds When the download failed, Unix time; 0 while it goes on
# TYPE model_download_failed_timestamp_seconds gauge
model_download_failed_timestamp_seconds{{model="{model}"}} {failed}
"""


class _Page:
    """Content of the page, with events for reads of it and of a failure."""

    def __init__(self, model: str, progress: DownloadProgress) -> None:
        self._model = model
        self._progress = progress
        self._failed = 0.0
        self.ever_read = threading.Event()
        self.failure_read = threading.Event()

    def fail(self) -> None:
        self._failed = time.time()

    def read(self) -> bytes:
        failed = self._failed
        page = _PAGE.format(
            model=self._model, present=self._progress.present, total=self._progress.total, failed=failed
        )
        self.ever_read.set()
        if failed:
            self.failure_read.set()
        return page.encode()


@contextmanager
def published(model: str, progress: DownloadProgress, port: int = PORT) -> Iterator[None]:
    """Serve `progress` while the block runs; after an error, wait for one more read if anybody has read before."""
    page = _Page(model, progress)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.read()
            self.send_response(http.HTTPStatus.OK)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: the log is for people."""

    try:
        server = http.server.ThreadingHTTPServer(("", port), Handler)
    except OSError as error:
        # Go on without: the model matters more than its progress.
        say(f"no metrics on port {port}: {error.strerror}")
        yield
        return
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    except BaseException:
        page.fail()
        if page.ever_read.is_set():
            page.failure_read.wait(_KEEP_S)
        raise
    finally:
        server.shutdown()
        server.server_close()
