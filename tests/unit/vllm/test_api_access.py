"""Access to the API: key from variable or file, and no open port without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import api_access
import pytest
from settings import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def adopted(env: Mapping[str, str]) -> dict[str, str]:
    given = dict(env)
    api_access.adopt_key(given)
    api_access.check(given)
    return given


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.8.8.8", "::1", "[::1]"])
def test_loopback_needs_no_key(address: str) -> None:
    assert "VLLM_API_KEY" not in adopted({"BIND_ADDRESS": address})


@pytest.mark.parametrize("address", ["0.0.0.0", "10.1.2.3", "::", "[2001:db8::1]"])
def test_open_address_needs_a_key(address: str) -> None:
    with pytest.raises(SettingError, match=r"BIND_ADDRESS.*VLLM_API_KEY is empty: set a key"):
        adopted({"BIND_ADDRESS": address})
    assert adopted({"BIND_ADDRESS": address, "VLLM_API_KEY": "s3cret"})["VLLM_API_KEY"] == "s3cret"


def test_key_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("s3cret\n")
    assert adopted({"BIND_ADDRESS": "0.0.0.0", "VLLM_API_KEY_FILE": str(file)})["VLLM_API_KEY"] == "s3cret"


def test_empty_default_file_is_no_key() -> None:
    assert "VLLM_API_KEY" not in adopted({"VLLM_API_KEY_FILE": "/dev/null"})
    assert adopted({"VLLM_API_KEY_FILE": "/dev/null", "VLLM_API_KEY": "a"})["VLLM_API_KEY"] == "a"


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"VLLM_API_KEY_FILE": "/no/such/file"}, "VLLM_API_KEY_FILE cannot be read"),
        ({"VLLM_API_KEY": "two words"}, "VLLM_API_KEY has blanks"),
        ({"BIND_ADDRESS": "localhost"}, "BIND_ADDRESS=localhost is no IP address"),
    ],
)
def test_invalid_address_or_key_is_refused(env: dict[str, str], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        adopted(env)


def test_key_and_key_file_conflict(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("a")
    with pytest.raises(SettingError, match="both set"):
        adopted({"VLLM_API_KEY_FILE": str(file), "VLLM_API_KEY": "b"})
