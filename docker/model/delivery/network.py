"""The way to the hub, for the hubs' clients: proxies and authorities, from our settings into what the clients read."""

import ipaddress
import os
import ssl
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from urllib.parse import urlsplit

from .listing import TransientError
from .log import root_cause
from .settings import DeliveryError, Settings

_OWN_HOSTS = ("localhost", "127.0.0.1", "::1")
# OpenSSL's own variable and that of Python's requests.
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
# OpenSSL's reasons for a chain that ends in an authority that is not known.
_UNKNOWN_AUTHORITY = (
    "self-signed certificate",
    "self signed certificate",
    "issuer certificate",
    "certificate signature",
)


def prepare(settings: Settings, environ: MutableMapping[str, str]) -> None:
    """Set the clients' variables of `environ`. Raises DeliveryError for a CA file that is none."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        # Upper case is of .env, lower case of Docker's client configuration; the clients prefer lower case.
        value = _either(name, environ)
        for spelt in (name, name.lower()):
            environ.pop(spelt, None)
            if value:
                environ[spelt] = value
    host = urlsplit(settings.address).hostname or ""
    direct = [part for part in _either("NO_PROXY", environ).split(",") if part.strip()]
    direct += [own for own in (*_OWN_HOSTS, *_inside_the_stack(host)) if own not in direct]
    environ["NO_PROXY"] = environ["no_proxy"] = ",".join(direct)
    if settings.ca_bundle:
        bundle = _with_public_authorities(settings.ca_bundle, environ)
        environ.update(dict.fromkeys(_CA_VARIABLES, bundle))


def unreachable(settings: Settings, error: BaseException) -> DeliveryError | TransientError:
    """Explain why the hub cannot be reached."""
    reason = root_cause(error)
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        if any(text in reason for text in _UNKNOWN_AUTHORITY):
            return DeliveryError(
                f"CA_BUNDLE_FILE: {settings.address} shows a certificate of an authority that is not known here "
                "(a proxy of your network that opens TLS?): set it to the PEM file with that authority's certificate"
            )
        return DeliveryError(
            f"{settings.address_setting}: {settings.address} has a wrong certificate ({reason}): check the address and "
            "the clock of this box"
        )
    return TransientError(
        f"{settings.address_setting}: cannot reach {settings.address} ({reason}): check the address, the network and "
        "the proxy"
    )


def _either(name: str, environ: MutableMapping[str, str]) -> str:
    return environ.get(name, "").strip() or environ.get(name.lower(), "").strip()


def _inside_the_stack(host: str) -> tuple[str, ...]:
    """Return the host if it is a service of Compose's network, such as `hub`: no proxy knows it."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return (host,) if host and "." not in host else ()
    return ()


def _with_public_authorities(file: str, environ: MutableMapping[str, str]) -> str:
    """Path of a copy of `file` with the public authorities: not every hub is behind the proxy that opens TLS."""
    try:
        ssl.create_default_context(cafile=file)
        own = Path(file).read_text()
    except (OSError, ValueError) as error:
        reason = "no certificate in PEM form" if isinstance(error, ssl.SSLError) else getattr(error, "strerror", error)
        raise DeliveryError(
            f"CA_BUNDLE_FILE: {reason}: give the authority's certificate as a PEM file that user {os.getuid()} may read"
        ) from None
    from requests.utils import DEFAULT_CA_BUNDLE_PATH  # noqa: PLC0415  # slow, and not needed without a file

    public = next((environ[name] for name in _CA_VARIABLES if environ.get(name)), "") or DEFAULT_CA_BUNDLE_PATH
    with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as bundle:
        bundle.write(f"{Path(public).read_text()}\n{own}")
    return bundle.name
