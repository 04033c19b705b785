from __future__ import annotations

import pytest

from loadtest.client.target import Target, build_request
from loadtest.input_error import InputError


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://localhost:8000", "localhost", 8000, "/v1/completions"),
        ("http://localhost:8000/", "localhost", 8000, "/v1/completions"),
        ("http://localhost:8000/v1", "localhost", 8000, "/v1/completions"),
        ("https://example.test/proxy/v1/", "example.test", 443, "/proxy/v1/completions"),
        ("http://[::1]:8000", "::1", 8000, "/v1/completions"),
        ("http://[fe80::1%25eth0]:8000", "fe80::1%eth0", 8000, "/v1/completions"),
        ("https://ark.test/api/v3", "ark.test", 443, "/api/v3/completions"),
        ("https://gemini.test/v1beta/openai/", "gemini.test", 443, "/v1beta/openai/completions"),
        ("http://localhost/v1?api-version=1&x=%20", "localhost", 80, "/v1/completions?api-version=1&x=%20"),
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
    with pytest.raises(InputError) as caught:
        Target.parse(url)
    assert "--host" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_key_is_sent_but_never_shown() -> None:
    target = Target.parse("http://localhost", "secret")
    assert b"\r\nAuthorization: Bearer secret\r\n" in target.head("chat")
    assert "secret" not in repr(target)


def test_key_cannot_inject_a_header() -> None:
    with pytest.raises(InputError):
        Target.parse("http://localhost", "a\r\nx: y")


def test_content_length_counts_bytes() -> None:
    body = '{"prompt":"é"}'.encode()
    assert build_request(b"X\r\nContent-Length: ", body) == b"X\r\nContent-Length: 15\r\n\r\n" + body


def test_ipv6_host_stands_in_brackets() -> None:
    assert b"\r\nHost: [::1]:8000\r\n" in Target.parse("http://[::1]:8000").head("chat")


@pytest.mark.parametrize(
    ("url", "metrics"),
    [
        ("http://h:8000", "http://h:8000/metrics"),
        ("http://h:8000/proxy/v1/", "http://h:8000/proxy/metrics"),
        ("http://h:8000/api/v3", "http://h:8000/metrics"),
    ],
)
def test_metrics_are_beside_v1_or_at_the_root(url: str, metrics: str) -> None:
    target = Target.parse(url)
    assert target.url(f"{target.root}/metrics") == metrics


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://h", "h"),
        ("https://h:8443", "h:8443"),
        ("http://[::1]:80", "[::1]"),
        ("http://[fe80::1%25eth0]:8000", "[fe80::1]:8000"),
    ],
)
def test_host_header_is_as_clients_send_it(url: str, host: str) -> None:
    assert f"\r\nHost: {host}\r\n".encode() in Target.parse(url).get("/")


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://bob:p%40w@h", b"Basic Ym9iOnBAdw=="),
        ("http://bob@h", b"Basic Ym9iOg=="),
        ("http://:pw@h", b"Basic OnB3"),
    ],
)
def test_user_and_password_become_basic_auth(url: str, sent: bytes) -> None:
    target = Target.parse(url)
    for head in (target.head("chat"), target.get("/v1/models")):
        assert b"\r\nAuthorization: %b\r\n" % sent in head


@pytest.mark.parametrize("where", ["http://bob:secret@h:9", "http://h:9/v1?key=secret", "http://bob:secret@h:x"])
def test_secrets_of_the_url_are_never_shown(where: str) -> None:
    try:
        target = Target.parse(where)
    except InputError as error:
        shown = str(error)
    else:
        shown = repr(target) + target.name + target.url("/v1/models")
    assert "secret" not in shown
    with pytest.raises(InputError) as caught:
        Target.parse(where.replace("http", "ftp"))
    assert "secret" not in str(caught.value)


def test_two_authorizations_are_refused() -> None:
    with pytest.raises(InputError, match="and there is a key too"):
        Target.parse("http://bob:pw@h", "key")
    with pytest.raises(InputError, match="and there is a key too"):
        Target.parse("http://bob:pw@h", headers=[("authorization", "Token x")])


def test_own_headers_replace_the_clients() -> None:
    given = [("api-key", "s"), ("authorization", "Token x"), ("HOST", "inner"), ("user-agent", "mine")]
    head = Target.parse("http://h", "key", headers=given).head("chat")
    for name, value in given:
        assert head.lower().count(b"\r\n%b: " % name.lower().encode()) == 1
        assert f"\r\n{name}: {value}\r\n".encode() in head
    assert "secret" not in repr(Target.parse("http://h", headers=[("x", "secret")]))


@pytest.mark.parametrize("name", ["a b", "", "x:", "Content-Length", "transfer-encoding"])
def test_header_that_breaks_a_request_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^--header: "):
        Target.parse("http://h", headers=[(name, "1")])
    with pytest.raises(InputError, match=r"^--header: x has line breaks"):
        Target.parse("http://h", headers=[("x", "a\r\nb: c")])


@pytest.mark.parametrize(
    ("location", "moved"),
    [
        ("/v1/models/", "/v1/models/"),
        ("http://H:80/x?y=1", "/x?y=1"),
        ("models/", "/v1/models/"),
        ("https://h/v1/models", None),  # the key would go to another port
        ("http://other/v1/models", None),
        ("//other/v1/models", None),
        ("http://[", None),
        ("/a b", None),
    ],
)
def test_redirect_stays_on_the_server(location: str, moved: str | None) -> None:
    assert Target.parse("http://h", "key").redirect("/v1/models", location) == moved
