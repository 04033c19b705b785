from __future__ import annotations

import pytest

from loadtest.client.target import Target, TargetError, build_request


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://localhost:8000", "localhost", 8000, "/v1/completions"),
        ("http://localhost:8000/", "localhost", 8000, "/v1/completions"),
        ("http://localhost:8000/v1", "localhost", 8000, "/v1/completions"),
        ("https://example.test/proxy/v1/", "example.test", 443, "/proxy/v1/completions"),
        ("http://[::1]:8000", "::1", 8000, "/v1/completions"),
    ],
)
def test_server_root_is_parsed(url: str, host: str, port: int, path: str) -> None:
    target = Target.parse(url)
    assert (target.host, target.port) == (host, port)
    assert target.head("completions").startswith(f"POST {path} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://x", "http://", "http://x:99999", "http://[", "http://x/a b"]
)
def test_invalid_server_root_is_refused(url: str) -> None:
    with pytest.raises(TargetError) as caught:
        Target.parse(url)
    assert "--host" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_key_is_sent_but_never_shown() -> None:
    target = Target.parse("http://localhost", "secret")
    assert b"\r\nAuthorization: Bearer secret\r\n" in target.head("chat")
    assert "secret" not in repr(target)


def test_key_cannot_inject_a_header() -> None:
    with pytest.raises(TargetError):
        Target.parse("http://localhost", "a\r\nx: y")


def test_content_length_counts_bytes() -> None:
    body = '{"prompt":"é"}'.encode()
    assert build_request(b"X\r\nContent-Length: ", body) == b"X\r\nContent-Length: 15\r\n\r\n" + body


def test_ipv6_host_stands_in_brackets() -> None:
    assert b"\r\nHost: [::1]:8000\r\n" in Target.parse("http://[::1]:8000").head("chat")
