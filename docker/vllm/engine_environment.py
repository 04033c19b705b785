"""Variables of the engine that have no setting of their own: ENGINE_ENV."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from settings import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

# Variables that belong to a setting, which ENGINE_ENV must not override silently.
OWNED = {
    **{
        name: name
        for name in (
            *(
                "MODEL_ID",
                "SERVED_MODEL_NAME",
                "MAX_MODEL_LEN",
                "DTYPE",
                "CHAT_TEMPLATE",
                "CPU_KV_CACHE_GIB",
                "GPU_IDS",
            ),
            *("TENSOR_PARALLEL_SIZE", "GPU_MEMORY_UTILIZATION", "MAX_CONCURRENT_REQUESTS", "ENGINE_STALL_TIMEOUT_S"),
            *("SLO_TTFT_MS", "SLO_TPOT_MS", "VLLM_EXTRA_ARGS", "BIND_ADDRESS", "VLLM_API_KEY", "VLLM_API_KEY_FILE"),
        )
    },
    "CUDA_VISIBLE_DEVICES": "GPU_IDS",
}


def read(env: Mapping[str, str]) -> dict[str, str]:
    """Variables in ENGINE_ENV: NAME=VALUE, separated by blanks, with quotes as in a shell. Raises SettingError.

    The message never has a value: it may be a secret.
    """
    try:
        words = shlex.split(env.get("ENGINE_ENV") or "")
    except ValueError as error:
        raise SettingError(f"ENGINE_ENV cannot be split into words ({error}): check its quotes") from None
    found: dict[str, str] = {}
    for number, word in enumerate(words, 1):
        name, equals, value = word.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise SettingError(
                f"ENGINE_ENV has no NAME=VALUE as word {number}: write for example NCCL_P2P_DISABLE=1 "
                "NCCL_DEBUG=INFO, and quotes around a value with blanks"
            )
        if name in OWNED:
            raise SettingError(f"ENGINE_ENV has {name}: use the setting {OWNED[name]} instead")
        found[name] = value
    return found


def adopt(env: MutableMapping[str, str] = os.environ) -> list[str]:
    """Set the variables of ENGINE_ENV, for vLLM too, and return their names. Raises SettingError."""
    if env.get("CUDA_VISIBLE_DEVICES") == "":
        del env["CUDA_VISIBLE_DEVICES"]  # of a shell that has it empty: it would hide every card
    given = read(env)
    env.update(given)
    return list(given)
