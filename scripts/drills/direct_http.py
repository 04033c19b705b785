"""HTTP requests to the stack under drill: not through the environment's proxies."""

from __future__ import annotations

from typing import Any

import requests


def get(url: str, **options: Any) -> requests.Response:
    """Send a GET request. Raises requests' errors."""
    return _send("GET", url, **options)


def post(url: str, **options: Any) -> requests.Response:
    """Send a POST request. Raises requests' errors."""
    return _send("POST", url, **options)


def _send(method: str, url: str, **options: Any) -> requests.Response:
    # A session each: a kept connection to an engine that was killed would be a failure of its own.
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, **options)
