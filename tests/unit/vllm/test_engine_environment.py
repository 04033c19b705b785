from __future__ import annotations

import engine_environment
import pytest
from settings import SettingError


def test_variables_reach_the_engine() -> None:
    env = {"ENGINE_ENV": "NCCL_P2P_DISABLE=1  HF_HUB_OFFLINE=0 A='b c=d' EMPTY=", "HF_HUB_OFFLINE": "1"}
    assert engine_environment.adopt(env) == ["NCCL_P2P_DISABLE", "HF_HUB_OFFLINE", "A", "EMPTY"]
    assert (env["NCCL_P2P_DISABLE"], env["HF_HUB_OFFLINE"], env["A"], env["EMPTY"]) == ("1", "0", "b c=d", "")
    assert engine_environment.adopt({"ENGINE_ENV": ""}) == []


def test_empty_list_of_cards_hides_none() -> None:
    env = {"CUDA_VISIBLE_DEVICES": ""}
    engine_environment.adopt(env)
    assert env == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NCCL_DEBUG=INFO s3cret", "word 2"),
        ("1NCCL=s3cret", "word 1"),
        ("A='s3cret", "quotes"),
        ("CUDA_VISIBLE_DEVICES=1", "GPU_IDS"),
        ("MODEL_ID=s3cret", "use the setting MODEL_ID"),
        ("VLLM_API_KEY=s3cret", "use the setting VLLM_API_KEY"),
    ],
)
def test_wrong_variables_are_one_line_without_value(text: str, words: str) -> None:
    with pytest.raises(SettingError, match=words) as error:
        engine_environment.adopt({"ENGINE_ENV": text})
    assert "s3cret" not in str(error.value)
    assert "\n" not in str(error.value)
