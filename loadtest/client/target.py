"""Address of the server under test, and the request heads for it."""

from __future__ import annotations

import base64
import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

from loadtest.input_error import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from urllib.parse import SplitResult

PATHS = {"chat": "/chat/completions", "completions": "/completions"}
_PORTS = {"http": 80, "https": 443}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
# The client writes these itself: another value would break the framing of the request.
_OWN_HEADERS = {"content-length", "transfer-encoding", "connection", "expect", "upgrade", "te", "trailer"}
_SECRETS_IN_URL = re.compile(r"(?<=//)[^/?#]*@|(?<=\?).*")


@dataclass(frozen=True, slots=True)
class Target:
    """One server: `host` and `port` to connect to, `base` the path of the API, `root` the path of its `/metrics`.

    `query` is sent with every request. `headers` are those of the user, the authorization among them. `ca_file`: the
    authorities that sign its certificate, "" for those of the system; `insecure`: any certificate. `engines` are the
    engines behind a router; empty if the server is the engine itself.
    """

    host: str
    port: int
    tls: bool
    base: str
    root: str
    query: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_file: str = ""
    insecure: bool = False
    engines: tuple[Target, ...] = ()

    @classmethod
    def parse(cls, url: str, api_key: str = "", engines: str = "", headers: Iterable[tuple[str, str]] = ()) -> Target:
        """Parse an address such as `http://localhost:8000`, and those of `engines`, separated by spaces.

        Without a path the API is at `/v1`; a path is used as given, as OpenAI clients use their base URL. `/metrics` is
        beside a `/v1` at the end of the path, otherwise at the server's root. `user:password@` and `api_key` become the
        authorization. Raises InputError for anything but an http(s) URL, and for what cannot stand in a request head.
        """
        parts = _split(url, "--host")
        if not _printable(api_key):
            raise InputError("--api-key", "has line breaks or letters outside of ASCII", "check VLLM_API_KEY")
        own = {name.lower(): (name, value) for name, value in headers}
        for name, value in own.values():
            _check_header(name, value)
        if parts.username or parts.password:
            if api_key or "authorization" in own:
                raise InputError(
                    "--host",
                    "has user:password@, and there is a key too",
                    "leave one of the two out, or send the key as --header NAME=VALUE",
                )
            user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            own["authorization"] = "Authorization", f"Basic {base64.b64encode(user.encode()).decode()}"
        elif api_key:
            own.setdefault("authorization", ("Authorization", f"Bearer {api_key}"))
        path = parts.path.rstrip("/")
        return cls(
            host=(parts.hostname or "").replace("%25", "%"),
            port=parts.port or _PORTS[parts.scheme],
            tls=parts.scheme == "https",
            base=path or "/v1",
            root=path.removesuffix("/v1") if path.endswith("/v1") else "",
            query=parts.query,
            headers=tuple(own.values()),
            engines=tuple(_parse_engine(engine) for engine in engines.split()),
        )

    def trust(self, ca_file: str, *, insecure: bool) -> Target:
        """Return the same target, and engines, whose certificates are checked against `ca_file`, or not at all."""
        engines = tuple(engine.trust(ca_file, insecure=insecure) for engine in self.engines)
        return dataclasses.replace(self, ca_file=ca_file, insecure=insecure, engines=engines)

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the connection for the reader of the results, one line each."""
        return ("certificates were not verified (--insecure)",) if self.insecure else ()

    @property
    def any_tls(self) -> bool:
        """True if the server or an engine behind it has a certificate."""
        return self.tls or any(engine.tls for engine in self.engines)

    @property
    def authority(self) -> str:
        """Host and port in the form of the Host header."""
        host = self.host.partition("%")[0]  # the zone of an IPv6 address is this machine's own
        host = f"[{host}]" if ":" in host else host
        return host if self.port == _PORTS[self._scheme] else f"{host}:{self.port}"

    @property
    def _scheme(self) -> str:
        return "https" if self.tls else "http"

    @property
    def name(self) -> str:
        """The address as results show it: without user, password and query, which may hold secrets."""
        return self.url(self.base.removesuffix("/v1"))

    def url(self, path: str) -> str:
        """Return the full URL of `path`, which starts with a slash, without secrets."""
        return f"{self._scheme}://{self.authority}{path}"

    def path(self, endpoint: str) -> str:
        """Return the path of `endpoint`."""
        return self.base + PATHS[endpoint]

    def head(self, endpoint: str, path: str = "") -> bytes:
        """Return the request head of `endpoint` up to the value of Content-Length; `path` only if it moved."""
        fields = {"Accept": "text/event-stream, application/json", "Content-Type": "application/json"}
        lines = [*self._lines("POST", path or self._with_query(self.path(endpoint)), fields), "Content-Length: "]
        return "\r\n".join(lines).encode("latin-1")

    def get(self, path: str) -> bytes:
        """Return a whole request for `path`."""
        lines = self._lines("GET", self._with_query(path), {"Accept": "*/*", "Connection": "close"})
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _with_query(self, path: str) -> str:
        return f"{path}?{self.query}" if self.query and "?" not in path else path

    def _lines(self, method: str, path: str, fields: Mapping[str, str]) -> list[str]:
        ours = {"Host": self.authority, "User-Agent": "headroom-loadtest", **fields}
        given = {name.lower() for name, _ in self.headers}
        sent = [*((name, value) for name, value in ours.items() if name.lower() not in given), *self.headers]
        return [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent)]

    def redirect(self, path: str, location: str) -> str | None:
        """Return the path and query to which `location` leads from `path`; None if that is another server.

        A key is for the server that the user named, and is sent to no other.
        """
        try:
            to = urlsplit(urljoin(self.url(path), location))
            port = to.port or _PORTS.get(to.scheme, 0)
        except ValueError:
            return None
        here = (self._scheme, self.host.partition("%")[0].lower(), self.port)
        moved = f"{to.path or '/'}?{to.query}" if to.query else to.path or "/"
        same = (to.scheme, (to.hostname or "").partition("%")[0].lower(), port) == here
        return moved if same and _printable(moved) and " " not in moved else None


def without_secrets(url: str) -> str:
    """Return `url` without user, password and query."""
    return _SECRETS_IN_URL.sub("***", url)


def _split(url: str, option: str) -> SplitResult:
    example = "write it like http://localhost:8000"
    if not url:
        raise InputError(option, "is empty", example)
    shown = repr(without_secrets(url))
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InputError(option, f"{shown}: {without_secrets(str(error))}", example) from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InputError(option, f"{shown} is not an http(s) URL", example)
    if " " in url or not _printable(url):
        raise InputError(option, f"{shown} has blanks or letters outside of ASCII", "write them as %20 or xn--")
    return parts


def _parse_engine(url: str) -> Target:
    """Parse the root of an engine; unlike the target's, its path is where `/metrics` is."""
    path = _split(url, "--engine-urls").path.rstrip("/")
    return dataclasses.replace(Target.parse(url), root=path.removesuffix("/v1"))


def _check_header(name: str, value: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise InputError("--header", f"{name!r} is no name of a header", "write it like --header api-key=SECRET")
    if name.lower() in _OWN_HEADERS:
        raise InputError("--header", f"{name} is set by the client itself", "leave it out")
    if not _printable(value):
        raise InputError("--header", f"{name} has line breaks or letters outside of ASCII", "encode its value")


def _printable(text: str) -> bool:
    """Return whether the text can stand in a request head unescaped."""
    return all(" " <= letter <= "~" for letter in text)


def build_request(head: bytes, body: bytes) -> bytes:
    """Return a whole request from a prebuilt `head` (`Target.head`) and a JSON `body`."""
    return b"%b%d\r\n\r\n%b" % (head, len(body), body)
