"""The way to the hub: proxies, and authorities of a company."""

import ssl
from pathlib import Path

import pytest
from airgap_hub.server import HubServer
from delivery import network, settings
from delivery.settings import DeliveryError

from tests.rig.tiny_model import error_of, run_model

DEAD = "http://127.0.0.1:9"


def prepared(address: str = "https://hub.example", **environ: str) -> dict[str, str]:
    network.prepare(settings.read({"MODELSCOPE_ENDPOINT": address}), environ)
    return environ


def test_proxies_of_env_win_in_both_cases() -> None:
    environ = prepared(HTTPS_PROXY="http://env:1 ", https_proxy="http://docker:2", http_proxy="http://docker:2")
    assert environ["HTTPS_PROXY"] == environ["https_proxy"] == "http://env:1"
    assert environ["HTTP_PROXY"] == environ["http_proxy"] == "http://docker:2"
    # Empty, as Compose passes what is not set: Docker's client configuration then counts.
    environ = prepared(ALL_PROXY="", all_proxy="http://docker:2", HTTP_PROXY="")
    assert environ["ALL_PROXY"] == "http://docker:2"
    assert "HTTP_PROXY" not in environ


@pytest.mark.parametrize(("host", "direct"), [("hub", True), ("hub.example", False), ("10.1.2.3", False)])
def test_hub_of_the_stack_needs_no_proxy(host: str, *, direct: bool) -> None:
    environ = prepared(f"http://{host}:8080", no_proxy="*.corp", NO_PROXY="")
    assert environ["no_proxy"] == environ["NO_PROXY"]
    excepted = environ["NO_PROXY"].split(",")
    assert {"*.corp", "127.0.0.1", "localhost"} <= set(excepted)
    assert (host in excepted) is direct


@pytest.mark.parametrize("source", ["modelscope", "huggingface"])
def test_hub_on_this_box_bypasses_proxies(volume_path: Path, address: str, source: str) -> None:
    proxies = {"http_proxy": DEAD, "ALL_PROXY": DEAD, "no_proxy": "*.corp"}
    result = run_model(volume_path, address=address, MODEL_SOURCE=source, **proxies)
    assert result.returncode == 0, result.stdout


@pytest.fixture
def tls_address(hub: HubServer, certificate: Path) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    hub.socket = context.wrap_socket(hub.socket, server_side=True)
    return f"https://127.0.0.1:{hub.server_port}"


@pytest.mark.parametrize("source", ["modelscope", "huggingface"])
def test_company_authority_is_one_setting(volume_path: Path, tls_address: str, certificate: Path, source: str) -> None:
    refused = error_of(run_model(volume_path, address=tls_address, MODEL_SOURCE=source, CA_BUNDLE_FILE="/dev/null"))
    assert "CA_BUNDLE_FILE" in refused
    assert "authority" in refused
    result = run_model(volume_path, address=tls_address, MODEL_SOURCE=source, CA_BUNDLE_FILE=str(certificate))
    assert result.returncode == 0, result.stdout


def test_public_authorities_stay_trusted(tmp_path: Path, certificate: Path) -> None:
    public = tmp_path / "public.pem"
    public.write_text("of everybody\n")
    environ = {"SSL_CERT_FILE": str(public)}
    network.prepare(settings.read({"CA_BUNDLE_FILE": str(certificate)}), environ)
    bundle = Path(environ["REQUESTS_CA_BUNDLE"])
    assert bundle.read_text() == f"of everybody\n\n{certificate.read_text()}"
    assert environ["SSL_CERT_FILE"] == str(bundle)
    bundle.unlink()


def test_file_without_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.der").write_bytes(b"\x30\x82\x03")
    for file, word in (("ca.der", "no certificate in PEM form"), ("missing", "cannot read")):
        with pytest.raises(DeliveryError, match=f"CA_BUNDLE_FILE: {word}"):
            network.prepare(settings.read({"CA_BUNDLE_FILE": str(tmp_path / file)}), {})


def test_expired_certificate_is_no_authority(volume_path: Path) -> None:
    read = settings.read({"MODEL_VOLUME": str(volume_path)})
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired (_ssl.c:1006)")
    assert "clock" in str(network.unreachable(read, error))
    assert "CA_BUNDLE_FILE" not in str(network.unreachable(read, error))
