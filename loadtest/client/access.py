"""One way to the server for load, model look-up and counters: which certificates count, and how a page is read.

Proxies of the environment play no part: a load test measures the server at the address that was given.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from loadtest.client.connection import Capture, Connection, End
from loadtest.client.http import read_response
from loadtest.client.target import without_secrets
from loadtest.input_error import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtest.client.target import Target

# OpenSSL reads the first itself; the others are of Python's requests and of curl, and hold where the first is not set.
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
MOST_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}


class PageError(Exception):
    """No page was read; the message gives the reason. `unreachable`: a request would fare no better."""

    def __init__(self, reason: str, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.unreachable = unreachable


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to a GET request."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """True if it is the page that was asked for."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as text, whatever its bytes are."""
        return self.body.decode("utf-8", "replace")


def find_ca_file(given: str, environ: Mapping[str, str]) -> str:
    """Return the file or folder of authorities, "" for those that OpenSSL finds. Raises InputError for an unusable one.

    `given` is --ca-file, or CA_BUNDLE_FILE of `environ`.
    """
    if given:
        from_environment = given == environ.get("CA_BUNDLE_FILE")
        # Compose mounts an empty file for a secret that names none.
        if from_environment and _is_empty(Path(given)):
            given = ""
        else:
            _check_ca_file(given, "CA_BUNDLE_FILE" if from_environment else "--ca-file")
            return given
    for name in _CA_VARIABLES:
        if path := environ.get(name, "").strip():
            _check_ca_file(path, name)
            return "" if name == "SSL_CERT_FILE" else path
    return ""


def _is_empty(file: Path) -> bool:
    try:
        return not file.is_dir() and not file.read_bytes()
    except OSError:
        return False


def _check_ca_file(path: str, setting: str) -> None:
    """Load the authorities once. Raises InputError."""
    try:
        _make_context(path)
    except (OSError, ValueError) as error:
        reason = "no certificate in PEM form" if isinstance(error, ssl.SSLError) else getattr(error, "strerror", error)
        raise InputError(setting, f"{path}: {reason}", "give the authority's certificate, in PEM form") from None


def tls_context(target: Target) -> ssl.SSLContext | None:
    """Return the TLS settings for `target`, None for plain HTTP. Raises OSError."""
    return _context(target.ca_file, target.insecure) if target.tls else None


@lru_cache(maxsize=8)
def _context(ca_file: str, insecure: bool) -> ssl.SSLContext:
    context = _make_context(ca_file)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _make_context(ca_file: str) -> ssl.SSLContext:
    if ca_file and Path(ca_file).is_dir():
        return ssl.create_default_context(capath=ca_file)
    return ssl.create_default_context(cafile=ca_file or None)


def read_page(target: Target, path: str, timeout_s: float) -> Page:
    """Read `path` of a server, along redirects on it. Raises PageError: no answer, or a redirect to another server."""
    for _ in range(MOST_REDIRECTS):
        page, location = _read_once(target, path, timeout_s)
        if page.status not in _REDIRECTS or not location:
            return page
        moved = target.redirect(path, location)
        if moved is None:
            # Where the same page is elsewhere, so are all others.
            same = urlsplit(location).path.rstrip("/").endswith(path.rstrip("/"))
            raise PageError(f"it redirects to another server, {without_secrets(location)[:200]}", unreachable=same)
        path = moved
    raise PageError(f"it redirects more than {MOST_REDIRECTS} times")


def _read_once(target: Target, path: str, timeout_s: float) -> tuple[Page, str]:
    connection = Connection(target, tls_context(target))
    capture = Capture()
    try:
        connection.exchange(target.get(path), timeout_s, capture)
    finally:
        connection.close()
    response = read_response(capture, _noop)
    if capture.end is not End.COMPLETE:
        raise PageError(capture.own_limit or capture.detail, unreachable=capture.end is End.CONNECT)
    return Page(response.status, response.body), response.headers.get("location", "")


def redirect_location(capture: Capture) -> str | None:
    """Return where a captured response wants the same request to be sent, None if it does not.

    Only 307 and 308 do so: after the others a client would send a GET, which is no request for an answer.
    """
    # Called for every request: the digit of the status is in its place unless the head came in pieces.
    if capture.received is not None:
        if not 300 <= capture.received.status < 400:
            return None
    elif not capture.reads or capture.reads[0][0][9:10] not in {b"3", b""}:
        return None
    response = read_response(capture, _noop)
    return response.headers.get("location") if response.status in {307, 308} else None


def _noop() -> None:
    pass
