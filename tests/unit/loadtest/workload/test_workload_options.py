from pathlib import Path
from typing import Any

import pytest

from loadtest.input_error import InputError
from loadtest.workload import WorkloadOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ""}, "--model: no model name; give a name that /v1/models"),
        ({"endpoint": "embeddings"}, "--endpoint: 'embeddings' is unknown; use chat, completions or both"),
        ({"shared_prefix_tokens": -1}, "--shared-prefix-tokens: -1 is negative; give 0 or more tokens"),
        ({"dataset": Path("a"), "trace": Path("b")}, "--dataset: --trace is given too; "),
        ({"dataset": Path("a"), "prompt_tokens": "9"}, "--prompt-tokens: --dataset decides the prompts; "),
        ({"trace": Path("a"), "prompt_tokens": "9"}, "--prompt-tokens: --trace decides the prompts; "),
        ({"trace": Path("a"), "output_tokens": "9"}, "--output-tokens: --trace decides the lengths; "),
        (
            {"dataset": Path("a"), "shared_prefix_tokens": 9},
            "--shared-prefix-tokens: --dataset is sent as it is; ",
        ),
    ],
)
def test_contradictory_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        WorkloadOptions(**{"model": "m", **options})
    assert str(caught.value).startswith(message)


def test_dataset_allows_own_output_lengths() -> None:
    assert WorkloadOptions(model="m", dataset=Path("a"), output_tokens="9").output_tokens == "9"


def test_both_means_both_endpoints() -> None:
    assert WorkloadOptions(model="m", endpoint="both").endpoints == ("chat", "completions")
    assert WorkloadOptions(model="m", endpoint="completions").endpoints == ("completions",)
