from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import pytest

from loadtest.client.access import PageError, find_ca_file, read_page
from loadtest.client.target import Target
from loadtest.input_error import InputError
from tests.rig.fixed_answers import Answer, serving
from tests.rig.loadtest_objects import options

if TYPE_CHECKING:
    from pathlib import Path

PAGE = {"/v1/models": Answer(b"page")}
ELSEWHERE = {"location": "http://other.test/v1/models?key=secret"}
_CA_VARIABLES = ("CA_BUNDLE_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture(autouse=True)
def no_proxy_or_authority_of_this_box(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def read(target: Target, path: str = "/v1/models") -> bytes:
    return read_page(target, path, 5).body


@pytest.mark.parametrize("variable", _CA_VARIABLES)
def test_variables_name_the_authority(
    monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, certificate: Path, variable: str
) -> None:
    monkeypatch.setenv(variable, str(certificate))
    given = ["--ca-file", str(certificate)] if variable == "CA_BUNDLE_FILE" else []
    with serving(PAGE, tls) as server:
        target = options(*given, host=server.url).target
        if variable == "SSL_CERT_FILE":  # OpenSSL reads it when the process starts
            assert target.ca_file == ""
        else:
            assert read(target) == b"page"


def test_unknown_authority_is_refused_or_waived(tls: ssl.SSLContext) -> None:
    with serving(PAGE, tls) as server:
        with pytest.raises(PageError, match="certificate") as caught:
            read(options(host=server.url).target)
        assert caught.value.unreachable
        waived = options("--insecure", host=server.url).target
        assert read(waived) == b"page"
        assert waived.notes == ("certificates were not verified (--insecure)",)
    assert options("--insecure", host="http://127.0.0.1:1").target.notes == ()


@pytest.mark.parametrize("content", [None, "no certificate", ""])
@pytest.mark.parametrize("variable", ["--ca-file", *_CA_VARIABLES])
def test_unusable_authority_is_refused(tmp_path: Path, variable: str, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    given = str(file) if variable in {"--ca-file", "CA_BUNDLE_FILE"} else ""
    environment = {} if variable == "--ca-file" else {variable: str(file)}
    if variable == "CA_BUNDLE_FILE" and content == "":
        for empty in (given, os.devnull):  # as compose mounts a secret that names no file
            assert find_ca_file(empty, {variable: empty}) == ""
        return
    with pytest.raises(InputError) as caught:
        find_ca_file(given, environment)
    assert str(caught.value).startswith(f"{variable}: {file}: ")
    assert "\n" not in str(caught.value)


def test_proxies_of_the_environment_are_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serving(PAGE) as server:
        assert read(Target.parse(server.url)) == b"page"


def test_redirects_on_the_server_are_followed() -> None:
    answers = {
        "/v1/models": Answer(status=301, headers={"location": "models/"}),
        "/v1/models/": Answer(status=308, headers={"location": "/new?x=1"}),
        "/new?x=1": Answer(b"moved"),
    }
    with serving(answers) as server:
        assert read(Target.parse(server.url, "key")) == b"moved"
        assert {headers["authorization"] for _, headers in server.seen} == {"Bearer key"}


@pytest.mark.parametrize(
    ("path", "unreachable"),
    [("/v1/models", True), ("/metrics", False)],
    ids=["the same page", "another page"],
)
def test_redirect_to_another_server_is_named(path: str, *, unreachable: bool) -> None:
    with (
        serving({path: Answer(status=307, headers=ELSEWHERE)}) as server,
        pytest.raises(PageError, match=r"another server, http://other\.test/v1/models") as caught,
    ):
        read(Target.parse(server.url, "key"), path)
    assert "secret" not in str(caught.value)
    assert caught.value.unreachable is unreachable


def test_endless_redirects_end() -> None:
    loop = {"/v1/models": Answer(status=302, headers={"location": "/v1/models"})}
    with serving(loop) as server, pytest.raises(PageError, match="more than 5 times"):
        read(Target.parse(server.url))
