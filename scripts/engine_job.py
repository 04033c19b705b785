"""Engine of the jobs without a server: the server's settings and checks, then vLLM's `LLM`.

The commands make docker/vllm's modules importable first.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import engine_environment
import engine_folders
import host_resources
import replica_resources
import settings as engine_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs

MIB = 2**20


def read(overrides: Mapping[str, str | None], env: MutableMapping[str, str] = os.environ) -> engine_settings.Settings:
    """Read the stack's settings with the job's `overrides`, checked like the server's; set ENGINE_ENV and the cards.

    Raises engine_settings.SettingError for a setting that cannot work.
    """
    settings = engine_settings.read({**env, **{name: value for name, value in overrides.items() if value}})
    if not from_hub(settings, env):
        if not settings.model_path.is_dir() and not (engine_settings.MODELS / settings.model_id).exists():
            raise engine_settings.SettingError(
                f"MODEL_ID={settings.model_id} is not on the models volume: `MODEL_ID={settings.model_id} "
                "docker compose run --rm model` brings it, or let vLLM fetch it with VLLM_USE_MODELSCOPE=true"
            )
        if settings.model_path.is_relative_to(engine_settings.MODELS):
            engine_settings.check_files(settings)
        elif not (settings.model_path / "config.json").is_file():
            raise engine_settings.SettingError(f"{settings.model_path} has no config.json: it is no model's folder")
        engine_settings.check_memory(settings, host_resources.available_memory_bytes())
    engine_settings.check_cpu(settings, host_resources.cpu_flags(), os.uname().machine)
    engine_environment.adopt(env)
    env.update(replica_resources.chosen(settings, env))
    engine_folders.prepare(env)
    check_gpu_memory(settings, gpu_memory(settings.gpu_ids))
    return settings


def from_hub(settings: engine_settings.Settings, env: Mapping[str, str] = os.environ) -> bool:
    """Return whether vLLM itself fetches the model: it is not here, and VLLM_USE_MODELSCOPE allows it."""
    allowed = (env.get("VLLM_USE_MODELSCOPE") or "").lower() in {"1", "true"}
    return allowed and not settings.model_path.is_dir()


def model_name(settings: engine_settings.Settings) -> str:
    """Model for vLLM and transformers to load: a folder, or the hub's id."""
    return settings.model_id if from_hub(settings) else str(settings.model_path)


def gpu_memory(ids: Sequence[str] = ()) -> list[tuple[int, int]]:
    """(free, total) bytes of each card, or of those of `ids`, from nvidia-smi; empty where there is none."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits"]
    query += ["-i", ",".join(ids)] if ids else []
    output = subprocess.run(query, capture_output=True, text=True, check=False).stdout  # noqa: S603  # a fixed command
    pairs = re.findall(r"^(\d+), (\d+)$", output, re.MULTILINE)
    return [(int(free) * MIB, int(total) * MIB) for free, total in pairs]


def check_gpu_memory(settings: engine_settings.Settings, cards: Sequence[tuple[int, int]]) -> None:
    """Raise SettingError while another process, most often the server, holds memory that the engine needs."""
    if settings.device != "gpu":
        return
    for free, total in cards[: settings.tensor_parallel_size]:
        wanted = settings.gpu_memory_utilization * total
        if free < wanted:
            raise engine_settings.SettingError(
                f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB of GPU memory is free and {wanted / 2**30:.1f} is "
                "needed: the server holds it; stop it with `docker compose stop vllm` (afterwards "
                "`docker compose start vllm`), or lower GPU_MEMORY_UTILIZATION"
            )


def engine_args(settings: engine_settings.Settings) -> EngineArgs:
    """Arguments for vLLM from the settings; flags of VLLM_EXTRA_ARGS for a server only are reported and dropped."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if from_hub(settings):
        os.environ["HF_HUB_OFFLINE"] = "0"  # before vLLM reads it: ModelScope's requests depend on it too
    from vllm.engine.arg_utils import EngineArgs  # noqa: PLC0415  # takes seconds: not before the input was checked
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415  # as above

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(add_help=False))
    arguments = [*engine_settings.engine_arguments(settings), *settings.extra_args]
    known, left_out = parser.parse_known_args([f"--model={model_name(settings)}", *arguments])
    if left_out:
        print(f"headroom: of VLLM_EXTRA_ARGS only the server takes {' '.join(left_out)}", file=sys.stderr)
    return EngineArgs.from_cli_args(known)


def start(args: EngineArgs) -> LLM:
    """Load vLLM."""
    from vllm import LLM  # noqa: PLC0415  # as above

    return LLM.from_engine_args(args)


def chat_template(settings: engine_settings.Settings) -> str | None:
    """Text of the chat template in CHAT_TEMPLATE; None for the model's own."""
    return (engine_settings.CHAT_TEMPLATES / settings.chat_template).read_text() if settings.chat_template else None


def clean_stdout() -> Any:
    """Return the real standard output, and send what libraries print there to standard error."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stdout.flush()
    os.dup2(2, 1)
    return out
