"""Address of the server under test, and the request head that all requests share."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


class TargetError(ValueError):
    """The server's address cannot be used; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Target:
    """One server: `host` and `port` to connect to, `base` the path before `/v1`, `api_key` for the bearer header.

    `engines`: root URLs of the engines behind a router; empty if the server is the engine itself.
    """

    host: str
    port: int
    tls: bool
    base: str
    api_key: str = field(default="", repr=False)
    engines: tuple[str, ...] = ()

    @classmethod
    def parse(cls, url: str, api_key: str = "", engines: str = "") -> Target:
        """Parse a server root such as `http://localhost:8000`, and the roots of `engines`, separated by spaces.

        A trailing `/v1` is dropped, because OpenAI clients expect it. Raises TargetError for anything but an http(s)
        URL, and for a URL or key that cannot stand in a request head.
        """
        if not url:
            raise TargetError("--host is empty: give the server's root, such as --host http://localhost:8000")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise TargetError(f"--host {url!r}: {error}") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise TargetError(f"--host {url!r} is not an http(s) URL: write it like http://localhost:8000")
        if " " in url or not _printable(url):
            raise TargetError(f"--host {url!r} has blanks or letters outside of ASCII: write them as %20 or xn--")
        if not _printable(api_key):
            raise TargetError("--api-key has line breaks or letters outside of ASCII: check VLLM_API_KEY")
        tls = parts.scheme == "https"
        base = parts.path.rstrip("/").removesuffix("/v1")
        roots = tuple(cls.parse(engine).url("") for engine in engines.split())
        return cls(parts.hostname, port or (443 if tls else 80), tls, base, api_key, roots)

    @property
    def authority(self) -> str:
        """Host and port in the form of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def url(self, path: str) -> str:
        """Return the full URL of `path`, which starts with a slash."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.base}{path}"

    def head(self, endpoint: str) -> bytes:
        """Return the request head of `endpoint` up to the value of Content-Length."""
        lines = [
            f"POST {self.base}{PATHS[endpoint]} HTTP/1.1",
            f"Host: {self.authority}",
            "User-Agent: headroom-loadtest",
            "Accept: text/event-stream, application/json",
            "Content-Type: application/json",
        ]
        if self.api_key:
            lines.append(f"Authorization: Bearer {self.api_key}")
        lines.append("Content-Length: ")
        return "\r\n".join(lines).encode("latin-1")


def _printable(text: str) -> bool:
    """Return whether the text can stand in a request head unescaped."""
    return all(" " <= letter <= "~" for letter in text)


def build_request(head: bytes, body: bytes) -> bytes:
    """Return a whole request from a prebuilt `head` (`Target.head`) and a JSON `body`."""
    return b"%b%d\r\n\r\n%b" % (head, len(body), body)
