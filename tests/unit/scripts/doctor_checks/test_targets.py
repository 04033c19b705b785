"""The doctor's results from Prometheus' answers."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from doctor_checks.stack_checks import check_targets

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWERS: dict[str, Any] = {
    "/api/v1/targets?state=active": {
        "activeTargets": [
            {"labels": {"job": "vllm"}, "health": "up", "scrapeUrl": "http://vllm:8000/metrics"},
            {
                "labels": {"job": "locust"},
                "health": "down",
                "scrapeUrl": "http://locust:8089/metrics",
                "lastError": "no",
            },
        ]
    },
    "/api/v1/alerts": {
        "alerts": [
            {"state": "firing", "labels": {"alertname": "LoadTestRunning", "severity": "info"}},
            {"state": "firing", "labels": {"alertname": "DiskLow", "severity": "warning"}},
            {"state": "pending", "labels": {"alertname": "EngineDown", "severity": "critical"}},
        ]
    },
}


class Prometheus(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"data": ANSWERS[self.path]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def prometheus() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Prometheus) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_down_targets_and_alerts_are_listed(prometheus: str) -> None:
    found = [(finding.what, finding.found) for finding in check_targets(prometheus)]
    assert found == [
        ("target vllm", "http://vllm:8000/metrics scraped"),
        ("target locust", "http://locust:8089/metrics: no"),
        ("alert", "DiskLow fires"),
    ]
