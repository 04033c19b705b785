"""Access to the API: the key, from its file or variable, and the check that one is set where needed."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING

from settings import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

KEY = "VLLM_API_KEY"


def adopt_key(env: MutableMapping[str, str] = os.environ) -> None:
    """Set VLLM_API_KEY from VLLM_API_KEY_FILE, if there is one, for vLLM and our own requests.

    Only in this process's environment: `docker inspect` shows the file's name alone. Raises SettingError.
    """
    path = env.get(f"{KEY}_FILE")
    if not path:
        return
    try:
        key = Path(path).read_text().strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SettingError(
            f"{KEY}_FILE cannot be read ({reason}): let user {os.getuid()} read it, for example with chmod 644 in a "
            "folder that only you may enter"
        ) from None
    if key and env.get(KEY):
        raise SettingError(f"{KEY} and {KEY}_FILE are both set: leave one of the two out")
    if key:
        env[KEY] = key


def check(env: Mapping[str, str] = os.environ) -> None:
    """Raise SettingError when other machines could reach the API without a key."""
    address = env.get("BIND_ADDRESS") or "127.0.0.1"
    try:
        loopback = ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        raise SettingError(f"BIND_ADDRESS={address} is no IP address: use 127.0.0.1, or one of this box") from None
    key = env.get(KEY, "")
    if not all("!" <= letter <= "~" for letter in key):
        raise SettingError(f"{KEY} has blanks or letters outside of ASCII: make one with `openssl rand -hex 24`")
    if not loopback and not key:
        raise SettingError(
            f"BIND_ADDRESS={address} lets other machines reach the API and {KEY} is empty: set a key in .env (make "
            "one with `openssl rand -hex 24`), or BIND_ADDRESS=127.0.0.1"
        )
