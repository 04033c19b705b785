import re

import pytest
from delivery.settings import DeliveryError, read


def test_defaults_name_the_small_qwen_at_modelscope() -> None:
    settings = read({})
    assert (settings.source, settings.model_id, settings.revision) == (
        "modelscope",
        "Qwen/Qwen2-0.5B-Instruct",
        "master",
    )
    assert settings.endpoint is None


def test_empty_means_unset_because_compose_passes_it_so() -> None:
    assert read({"MODEL_ID": "", "MODELSCOPE_ENDPOINT": " "}) == read({})


@pytest.mark.parametrize(
    ("setting", "value", "fix"),
    [
        ("MODEL_SOURCE", "ftp", "use modelscope"),
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
