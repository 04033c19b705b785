import re
from pathlib import Path

import pytest
from delivery.settings import DeliveryError, read


def test_defaults_are_small_qwen_at_modelscope() -> None:
    settings = read({})
    assert (settings.source, settings.name) == ("modelscope", "Qwen/Qwen2-0.5B-Instruct@master")
    assert settings.address == "https://www.modelscope.cn"


def test_default_revision_per_source() -> None:
    assert read({"MODEL_SOURCE": "huggingface"}).revision == "main"
    assert read({"MODEL_SOURCE": "huggingface", "MODEL_REVISION": "v2"}).revision == "v2"


def test_empty_variable_counts_as_unset() -> None:
    assert read({"MODEL_ID": "", "MODELSCOPE_ENDPOINT": " "}) == read({})


@pytest.mark.parametrize(
    ("setting", "value", "fix"),
    [
        ("MODEL_SOURCE", "ftp", "use modelscope, huggingface, local"),
        ("MODEL_ID", "just-a-name", "write owner/name"),
        ("MODEL_ID", "../../etc/passwd", "write owner/name"),
        ("MODEL_ID", "a/b/c", "write owner/name"),
        ("MODEL_REVISION", "../x", "branch, tag or commit"),
        ("MODELSCOPE_ENDPOINT", "hub:8080", "http://hub:8080"),
        ("MODEL_STALL_TIMEOUT_S", "soon", "write seconds"),
        ("MODEL_STALL_TIMEOUT_S", "-1", "write seconds"),
    ],
)
def test_wrong_setting_is_one_line(setting: str, value: str, fix: str) -> None:
    with pytest.raises(DeliveryError, match=re.escape(fix)) as caught:
        read({setting: value})
    assert str(caught.value).startswith(f"{setting}: {value!r}")
    assert "\n" not in str(caught.value)


def test_token_file_stays_out_of_repr(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hf_topsecret\n")
    settings = read({"MODEL_TOKEN_FILE": str(secret)})
    assert settings.token == "hf_topsecret"  # noqa: S105  # of this test alone
    assert "topsecret" not in repr(settings)


def test_unreadable_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="MODEL_TOKEN_FILE: cannot read"):
        read({"MODEL_TOKEN_FILE": str(tmp_path / "none")})


def test_patterns_split_at_commas_or_blanks() -> None:
    assert read({"MODEL_IGNORE_PATTERNS": "*.bin, *.pt  *.h5"}).ignore == ("*.bin", "*.pt", "*.h5")
