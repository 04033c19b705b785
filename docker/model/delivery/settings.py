"""The settings, from the environment: read once, checked before anything else happens."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The revision that each source means when none is given.
DEFAULT_REVISIONS = {"modelscope": "master"}
_ENDPOINT_SETTINGS = {"modelscope": "MODELSCOPE_ENDPOINT"}
_MODEL_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w./-]*", re.ASCII)
_DEFAULT_MODEL = "Qwen/Qwen2-0.5B-Instruct"


class DeliveryError(Exception):
    """One line for a person: what is wrong, which setting, how to fix it."""


@dataclass(frozen=True)
class Settings:
    """What to deliver and from where. `endpoint` is None for the hub's public address."""

    source: str
    model_id: str
    revision: str
    volume: Path
    endpoint: str | None = None
    endpoint_setting: str = ""
    token: str = field(default="", repr=False)
    stall_timeout_s: float = 300


def read(environ: Mapping[str, str]) -> Settings:
    """Read the settings; empty means unset, as Compose passes it. Raises DeliveryError."""
    values = {name: value.strip() for name, value in environ.items() if value.strip()}
    source = values.get("MODEL_SOURCE", "modelscope")
    if source not in DEFAULT_REVISIONS:
        raise DeliveryError(f"MODEL_SOURCE: {source!r} is no source: use {' or '.join(DEFAULT_REVISIONS)}")
    model_id = values.get("MODEL_ID", _DEFAULT_MODEL)
    if not _MODEL_ID.fullmatch(model_id):
        raise DeliveryError(
            f"MODEL_ID: {model_id!r} is no model id: write owner/name as on the hub's page, such as {_DEFAULT_MODEL}"
        )
    revision = values.get("MODEL_REVISION", DEFAULT_REVISIONS[source])
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise DeliveryError(f"MODEL_REVISION: {revision!r} is no revision: write a branch, tag or commit")
    return Settings(
        source=source,
        model_id=model_id,
        revision=revision,
        volume=Path(values.get("MODEL_VOLUME", "/models")),
        endpoint=_endpoint(values, _ENDPOINT_SETTINGS[source]),
        endpoint_setting=_ENDPOINT_SETTINGS[source],
        stall_timeout_s=_seconds(values, "MODEL_STALL_TIMEOUT_S", 300),
    )


def _endpoint(values: Mapping[str, str], setting: str) -> str | None:
    endpoint = values.get(setting)
    if endpoint is not None and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", endpoint):
        raise DeliveryError(f"{setting}: {endpoint!r} is no address: write it out, as http://hub:8080")
    return endpoint


def _seconds(values: Mapping[str, str], setting: str, default: float) -> float:
    text = values.get(setting, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise DeliveryError(f"{setting}: {text!r} is no time: write seconds, for example {default:g}")
    return seconds
