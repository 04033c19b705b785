"""Requests to the stack go straight to it, whatever proxies the environment names."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import api_client
import pytest
import router_registration
from doctor_checks import stack_checks
from drills import direct_http

from loadtest.capacity.remote import LocustPage
from loadtest.input_error import InputError
from tests.rig.fixed_answers import Answer, FixedAnswerServer, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
PAGE = Answer(b'{"data": [], "running": true, "state": "running", "success": true}')


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FixedAnswerServer]:
    """A proxy in every variable of the environment; it knows no host, and keeps what it was asked."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving({}) as server:
        for name in NAMES:
            monkeypatch.setenv(name, server.url)
        yield server


def engine(url: str) -> None:
    api_client.SERVER = url
    api_client.request("/page", timeout_s=5)


def router(url: str) -> None:
    router_registration.Registration(url, lambda _: url)._ask(url, "page")


def doctor(url: str) -> None:
    stack_checks._ask(f"{url}/page")


def drill(url: str) -> None:
    direct_http.post(f"{url}/page", json={}).raise_for_status()


def capacity(url: str) -> None:
    with contextlib.suppress(InputError):  # a test runs there already
        LocustPage(f"{url}/page").start({})


def smoke(url: str) -> None:
    program = [sys.executable, str(ROOT / "scripts" / "smoke"), "--base-url", f"{url}/page"]
    subprocess.run(program, env=dict(os.environ), capture_output=True, check=False)


@pytest.mark.parametrize("ask", [engine, router, doctor, drill, capacity, smoke])
def test_own_request_bypasses_every_proxy(
    proxy: FixedAnswerServer, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], Any]
) -> None:
    monkeypatch.setattr(api_client, "SERVER", api_client.SERVER)  # restored afterwards
    paths = ("/page", "/page/models", "/page/capacity?from=0", "/page/stats/requests")
    with serving(dict.fromkeys(paths, PAGE)) as server:
        ask(server.url)
        assert server.seen
    assert proxy.seen == []


def test_python_would_use_the_proxy(proxy: FixedAnswerServer) -> None:
    program = "import sys, urllib.request as u; u.urlopen(sys.argv[1])"
    with serving({"/": PAGE}) as server:
        done = subprocess.run([sys.executable, "-c", program, server.url], capture_output=True, check=False)
        assert (done.returncode, server.seen, len(proxy.seen)) == (1, [], 1)


def test_doctor_asks_the_hub_by_the_downloads_way(
    proxy: FixedAnswerServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert stack_checks.download_proxies({"HTTP_PROXY": ""}) == {}
    (tmp_path / "config.json").write_text('{"proxies": {"default": {"httpProxy": "http://docker:1", "noProxy": "b"}}}')
    assert stack_checks.download_proxies({"HTTP_PROXY": ""}) == {"http": "http://docker:1", "no": "b"}
    assert stack_checks.download_proxies({"HTTP_PROXY": "http://env:1"})["http"] == "http://env:1"
    with serving({}) as hub:
        assert stack_checks._cannot_reach(hub.url, {}, "") == ""
        assert (len(hub.seen), len(proxy.seen)) == (1, 0)
        assert stack_checks._cannot_reach("http://hub.example/", {"all": proxy.url}, "") == ""
        assert len(proxy.seen) == 1
        assert stack_checks._cannot_reach(hub.url, {"http": proxy.url, "no": "127.0.0.1"}, "") == ""
        assert (len(hub.seen), len(proxy.seen)) == (2, 1)


def test_doctor_names_the_setting_for_an_authority(certificate: Path) -> None:
    import ssl  # noqa: PLC0415  # for this test alone

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving({}, context) as hub:
        environment = {"MODEL_ID": "a/b", "MODELSCOPE_ENDPOINT": hub.url}
        model: dict[str, Any] = {"services": {"model": {"environment": environment}}}
        missing = stack_checks.OnVolume(ready=False, bytes=0, known=True)
        assert "CA_BUNDLE_FILE" in list(stack_checks.check_model(model, missing))[-1].fix
        model["secrets"] = {"ca_bundle": {"file": str(certificate)}}
        assert list(stack_checks.check_model(model, missing))[-1].found == hub.url
