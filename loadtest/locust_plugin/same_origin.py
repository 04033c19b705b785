"""Protection of Locust's page against requests from other web sites.

Locust has no login, and starts and stops tests by plain requests. A page of another site, open in the same browser,
could start a test against a host of its choice and so get the API key. Browsers send the origin of a request; requests
from another site are refused. Programs such as curl send neither header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Response, request

if TYPE_CHECKING:
    from flask import Flask


def install(app: Flask) -> None:
    """Refuse requests made by another site's page; following a link to Locust's page stays possible."""

    def refuse_other_sites() -> Response | None:
        origin = request.headers.get("Origin")
        foreign = origin is not None and urlsplit(origin).netloc != request.host
        fetched = request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}
        # https://www.w3.org/TR/fetch-metadata/ (Sec-Fetch-Mode: navigate is a click or a typed address)
        visit = request.method == "GET" and request.path == "/" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        if (foreign or fetched) and not visit:
            return Response("refused: the request comes from another web site\n", 403, content_type="text/plain")
        return None

    app.before_request(refuse_other_sites)
