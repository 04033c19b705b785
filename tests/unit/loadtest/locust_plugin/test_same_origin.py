"""No page of another web site can start or stop a load test, or read its figures."""

from __future__ import annotations

import pytest
from flask import Flask

from loadtest.locust_plugin import same_origin


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    same_origin.install(app)
    for path in ("/", "/swarm", "/stop"):
        app.add_url_rule(path, path, lambda: "done", methods=["GET", "POST"])
    return app


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/swarm", {}, 200),  # curl, and Locust's own command line
        ("POST", "/swarm", {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, 200),
        ("POST", "/swarm", {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/swarm", {"Origin": "null"}, 403),  # a sandboxed frame
        ("POST", "/swarm", {"Origin": "http://localhost:3000"}, 403),  # another program's page on this box
        ("GET", "/stop", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),  # an image's address
        ("GET", "/stop", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),  # a link to it
        ("GET", "/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),  # a link to the page
        ("GET", "/stop", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("GET", "/", {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),  # a typed address
    ],
)
def test_cross_site_requests_are_refused(
    app: Flask, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    assert app.test_client().open(path, method=method, headers=headers).status_code == status
