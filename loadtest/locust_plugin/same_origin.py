"""Keeps other web sites away from Locust's page.

Locust asks nobody who they are, and starts and stops tests by plain requests. A page of another site, open in the
same browser could send them, start a test against a host of its choice, and so get the API's key. Browsers say where
a request comes from; what comes from another site is refused. Programs such as curl send neither header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Response, request

if TYPE_CHECKING:
    from flask import Flask


def install(app: Flask) -> None:
    """Refuse requests that another site's page makes; following a link to the page itself stays possible."""

    def refuse_other_sites() -> Response | None:
        origin = request.headers.get("Origin")
        foreign = origin is not None and urlsplit(origin).netloc != request.host
        fetched = request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}
        # https://www.w3.org/TR/fetch-metadata/ (Sec-Fetch-Mode: navigate is a person's click or a typed address)
        visit = request.method == "GET" and request.path == "/" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        if (foreign or fetched) and not visit:
            return Response("refused: the request comes from another web site\n", 403, content_type="text/plain")
        return None

    app.before_request(refuse_other_sites)
