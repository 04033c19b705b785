import re
from pathlib import Path

import pytest
from delivery.settings import DeliveryError, read


def test_defaults_name_the_small_qwen_at_modelscope() -> None:
    settings = read({})
    assert (settings.source, settings.name) == ("modelscope", "Qwen/Qwen2-0.5B-Instruct@master")
    assert settings.address == "https://www.modelscope.cn"


def test_each_source_has_its_own_default_revision() -> None:
    assert read({"MODEL_SOURCE": "huggingface"}).revision == "main"
    assert read({"MODEL_SOURCE": "huggingface", "MODEL_REVISION": "v2"}).revision == "v2"


def test_empty_means_unset_because_compose_passes_it_so() -> None:
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
def test_bad_setting_is_named_with_its_fix_in_one_line(setting: str, value: str, fix: str) -> None:
    with pytest.raises(DeliveryError, match=re.escape(fix)) as caught:
        read({setting: value})
    assert str(caught.value).startswith(f"{setting}: {value!r}")
    assert "\n" not in str(caught.value)


def test_token_comes_from_a_secret_file_and_stays_out_of_the_settings_text(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hf_topsecret\n")
    settings = read({"MODEL_TOKEN_FILE": str(secret)})
    assert settings.token == "hf_topsecret"  # noqa: S105  # of this test alone
    assert "topsecret" not in repr(settings)


def test_unreadable_secret_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="MODEL_TOKEN_FILE: cannot read"):
        read({"MODEL_TOKEN_FILE": str(tmp_path / "none")})


def test_patterns_may_be_parted_by_commas_or_blanks() -> None:
    assert read({"MODEL_IGNORE_PATTERNS": "*.bin, *.pt  *.h5"}).ignore == ("*.bin", "*.pt", "*.h5")
