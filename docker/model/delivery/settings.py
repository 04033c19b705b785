"""Settings from the environment, read once and checked first."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_DEFAULT_MODEL = "Qwen/Qwen2-0.5B-Instruct"
_MODEL_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w./-]*", re.ASCII)


class DeliveryError(Exception):
    """A failed delivery; the message is one line with problem, setting and fix."""


@dataclass(frozen=True)
class SourceKind:
    """A source's default revision, public address, and the setting that changes the address."""

    default_revision: str
    address: str
    address_setting: str


SOURCES = {
    "modelscope": SourceKind("master", "https://www.modelscope.cn", "MODELSCOPE_ENDPOINT"),
    "huggingface": SourceKind("main", "https://huggingface.co", "HF_ENDPOINT"),
    "local": SourceKind("local", "/local", "MODEL_LOCAL_PATH"),
}


@dataclass(frozen=True)
class Settings:
    """The wanted model and its source. `address` is a hub's URL, or the local source's folder or archive.

    `ca_bundle` is a PEM file of authorities to trust beside the public ones, "" for none.
    """

    source: str
    model_id: str
    revision: str
    volume: Path
    address: str
    address_setting: str
    token: str = field(default="", repr=False)
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    has_chat_template: bool = False
    stall_timeout_s: float = 300
    ca_bundle: str = ""

    @property
    def name(self) -> str:
        """The model's name in messages."""
        return f"{self.model_id}@{self.revision}"


def read(environ: Mapping[str, str]) -> Settings:
    """Read the settings; empty means unset, as Compose passes them. Raises DeliveryError."""
    values = {name: value.strip() for name, value in environ.items() if value.strip()}
    source = values.get("MODEL_SOURCE", "modelscope")
    kind = SOURCES.get(source)
    if kind is None:
        raise DeliveryError(f"MODEL_SOURCE: {source!r} is no source: use {', '.join(SOURCES)}")
    model_id = values.get("MODEL_ID", _DEFAULT_MODEL)
    if not _MODEL_ID.fullmatch(model_id):
        raise DeliveryError(
            f"MODEL_ID: {model_id!r} is no model id: write owner/name as on the hub's page, such as {_DEFAULT_MODEL}"
        )
    revision = values.get("MODEL_REVISION", kind.default_revision)
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise DeliveryError(f"MODEL_REVISION: {revision!r} is no revision: write a branch, tag or commit")
    address = values.get(kind.address_setting, kind.address).rstrip("/")
    if source != "local" and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", address):
        raise DeliveryError(f"{kind.address_setting}: {address!r} is no address: write it out, as http://hub:8080")
    return Settings(
        source=source,
        model_id=model_id,
        revision=revision,
        volume=Path(values.get("MODEL_VOLUME", "/models")),
        address=address,
        address_setting=kind.address_setting,
        token=_token(values),
        allow=_patterns(values, "MODEL_ALLOW_PATTERNS"),
        ignore=_patterns(values, "MODEL_IGNORE_PATTERNS"),
        has_chat_template="CHAT_TEMPLATE" in values,
        stall_timeout_s=_seconds(values, "MODEL_STALL_TIMEOUT_S", 300),
        ca_bundle=_ca_bundle(values),
    )


def require_key_for_others(environ: Mapping[str, str]) -> None:
    """Raise DeliveryError when other machines could reach the API without a key.

    The engine refuses too (docker/vllm/api_access.py); here it comes before a download of gigabytes.
    """
    address = environ.get("BIND_ADDRESS", "").strip() or "127.0.0.1"
    try:
        loopback = ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        raise DeliveryError(f"BIND_ADDRESS: {address!r} is no IP address: use 127.0.0.1, or one of this box") from None
    if not loopback and not environ.get("API_KEY_IS_SET"):
        raise DeliveryError(
            f"BIND_ADDRESS: {address} lets other machines reach the API and VLLM_API_KEY is empty: set a key in .env "
            "(make one with `openssl rand -hex 24`), or BIND_ADDRESS=127.0.0.1"
        )


def _token(values: Mapping[str, str]) -> str:
    """Token from MODEL_TOKEN_FILE, Compose's secret, or where that is empty from MODEL_TOKEN."""
    path = values.get("MODEL_TOKEN_FILE")
    if path is None:
        return values.get("MODEL_TOKEN", "")
    try:
        return Path(path).read_text().strip() or values.get("MODEL_TOKEN", "")
    except OSError as error:
        raise DeliveryError(
            f"MODEL_TOKEN_FILE: cannot read {path} ({error.strerror}): let user {os.getuid()} read the secret"
        ) from error


def _ca_bundle(values: Mapping[str, str]) -> str:
    """File of CA_BUNDLE_FILE, empty for none: Compose mounts an empty file for a secret that names none."""
    path = values.get("CA_BUNDLE_FILE", "")
    try:
        return path if path and Path(path).stat().st_size else ""
    except OSError as error:
        raise DeliveryError(f"CA_BUNDLE_FILE: cannot read {path} ({error.strerror}): name a PEM file") from error


def _patterns(values: Mapping[str, str], setting: str) -> tuple[str, ...]:
    return tuple(re.split(r"[\s,]+", values[setting])) if setting in values else ()


def _seconds(values: Mapping[str, str], setting: str, default: float) -> float:
    text = values.get(setting, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise DeliveryError(f"{setting}: {text!r} is no time: write seconds, for example {default:g}")
    return seconds
