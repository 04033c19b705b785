"""Settings of the engine's container: from the environment to `vllm serve` flags.

Uses the standard library only, because the container runs the official vLLM image.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import latency_buckets

if TYPE_CHECKING:
    from collections.abc import Mapping

MODELS = Path("/models")
CHAT_TEMPLATES = Path("/etc/headroom/chat-templates")
CACHE = Path("/cache")
PORT = 8000

# float32 on CPUs: with bfloat16, vLLM 0.32 gives wrong answers on CPUs with AMX (scripts/smoke's golden question
# detects it), and float16 overflows in some models. On GPUs the model's own type is right.
DEFAULT_DTYPE = {"cpu": "float32", "gpu": "auto"}
DTYPE_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}

# Flags that belong to a setting, which VLLM_EXTRA_ARGS must not override silently.
OWNED_FLAGS = {
    "--api-key": "VLLM_API_KEY",
    "--chat-template": "CHAT_TEMPLATE",
    "--custom-histogram-buckets": "SLO_TTFT_MS",
    "--dtype": "DTYPE",
    "--gpu-memory-utilization": "GPU_MEMORY_UTILIZATION",
    "--hf-token": "MODEL_TOKEN",
    "--host": "BIND_ADDRESS",
    "--kv-cache-memory-bytes": "CPU_KV_CACHE_GIB",
    "--max-model-len": "MAX_MODEL_LEN",
    "--max-num-queued-reqs": "MAX_CONCURRENT_REQUESTS",
    "--model": "MODEL_ID",
    "--port": "VLLM_PORT",
    "--served-model-name": "SERVED_MODEL_NAME",
    "--tensor-parallel-size": "TENSOR_PARALLEL_SIZE",
    "-tp": "TENSOR_PARALLEL_SIZE",
}


class SettingError(Exception):
    """A setting that cannot work; the message is one line that names it and the fix."""


@dataclass(frozen=True)
class Settings:
    """Settings of one engine; names end in their unit (`gib`, `ms`, `s`), `max_model_len` is in tokens.

    `gpu_ids` are the cards to use, as nvidia-smi numbers or names them; empty for all.
    """

    device: str
    model_id: str
    served_model_names: tuple[str, ...]
    max_model_len: str
    dtype: str
    chat_template: str
    tensor_parallel_size: int
    cpu_kv_cache_gib: float
    gpu_memory_utilization: float
    slo_ttft_ms: float
    slo_tpot_ms: float
    max_concurrent_requests: int
    stall_timeout_s: float
    gpu_ids: tuple[str, ...]
    extra_args: tuple[str, ...]

    @property
    def served_model_name(self) -> str:
        """Name for everything that needs one: the first, which vLLM puts into its metrics too."""
        return self.served_model_names[0]

    @property
    def model_path(self) -> Path:
        """Folder of the model on the `models` volume."""
        return MODELS / self.model_id


def read(env: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; an empty variable counts as unset, and blanks at its ends as absent.

    Raises SettingError for a value that cannot work.
    """
    env = {name: value.strip() for name, value in env.items()}
    device = env.get("ENGINE_DEVICE") or "cpu"
    if device not in DEFAULT_DTYPE:
        raise SettingError(f"ENGINE_DEVICE={device} is unknown: use {' or '.join(DEFAULT_DTYPE)}")
    model_id = env.get("MODEL_ID") or ""
    if not model_id:
        raise SettingError("MODEL_ID is empty: set it in .env, for example MODEL_ID=Qwen/Qwen2-0.5B-Instruct")
    return Settings(
        device=device,
        model_id=model_id,
        served_model_names=_served_names(env.get("SERVED_MODEL_NAME") or model_id),
        max_model_len=_model_length(env.get("MAX_MODEL_LEN") or "2048"),
        dtype=_dtype(env.get("DTYPE") or DEFAULT_DTYPE[device]),
        chat_template=env.get("CHAT_TEMPLATE") or "",
        tensor_parallel_size=int(_number(env, "TENSOR_PARALLEL_SIZE", 1, low=1, high=1024, whole=True)),
        cpu_kv_cache_gib=_number(env, "CPU_KV_CACHE_GIB", 1, low=0.05, high=4096),
        gpu_memory_utilization=_number(env, "GPU_MEMORY_UTILIZATION", 0.9, low=0.05, high=1),
        slo_ttft_ms=_number(env, "SLO_TTFT_MS", 500, low=1, high=600_000),
        slo_tpot_ms=_number(env, "SLO_TPOT_MS", 50, low=1, high=600_000),
        max_concurrent_requests=int(_number(env, "MAX_CONCURRENT_REQUESTS", 1024, low=0, high=1_000_000, whole=True)),
        stall_timeout_s=_stall_timeout(env),
        gpu_ids=_gpu_ids(env) if device == "gpu" else (),
        extra_args=_extra_args(env.get("VLLM_EXTRA_ARGS") or ""),
    )


def arguments(settings: Settings) -> list[str]:
    """Arguments of `vllm serve`. The API key is not among them: vLLM reads VLLM_API_KEY itself."""
    args = [
        str(settings.model_path),
        "--served-model-name",
        *settings.served_model_names,
        "--host=0.0.0.0",  # inside the container; compose.yaml publishes it on BIND_ADDRESS
        f"--port={PORT}",
        # Refuses new requests while the engine stops; supervisor.py lets running ones end before it stops vLLM.
        "--middleware=headroom_gate.Gate",
        # The last is the outermost: the gate does not count a request that it refuses.
        "--middleware=headroom_api.OnlyTheApi",
        "--disable-access-log-for-endpoints=/health,/metrics",
        f"--custom-histogram-buckets={json.dumps(_histogram_edges(settings))}",
        *engine_arguments(settings),
    ]
    if settings.max_concurrent_requests:
        # Despite its name it counts running and waiting requests.
        args.append(f"--max-num-queued-reqs={settings.max_concurrent_requests}")
    if settings.chat_template:
        args.append(f"--chat-template={CHAT_TEMPLATES / settings.chat_template}")
    return [*args, *settings.extra_args]


def engine_arguments(settings: Settings) -> list[str]:
    """Arguments of the engine without the server's; the jobs use them too."""
    args = [f"--max-model-len={settings.max_model_len}", f"--dtype={settings.dtype}"]
    if settings.device == "cpu":
        # Compilation takes a minute and needs a compiler; with bfloat16 it also gave wrong answers.
        kv_cache_bytes = int(settings.cpu_kv_cache_gib * 2**30)
        return [*args, "--enforce-eager", f"--kv-cache-memory-bytes={kv_cache_bytes}"]
    return [
        *args,
        f"--gpu-memory-utilization={settings.gpu_memory_utilization:g}",
        f"--tensor-parallel-size={settings.tensor_parallel_size}",
    ]


def check_files(settings: Settings) -> None:
    """Raise SettingError unless the model is complete on the volume and the chat template exists."""
    if not (settings.model_path / "READY").is_file():
        raise SettingError(
            f"MODEL_ID={settings.model_id} is not complete on the models volume: "
            "see `docker compose logs model`, then `docker compose up -d model`"
        )
    if settings.chat_template and not (CHAT_TEMPLATES / settings.chat_template).is_file():
        there = ", ".join(sorted(p.name for p in CHAT_TEMPLATES.glob("*.jinja"))) or "none"
        raise SettingError(
            f"CHAT_TEMPLATE={settings.chat_template} is not in docker/vllm/chat-templates (there: {there}): "
            "put the file there and give its name, or leave CHAT_TEMPLATE empty for the model's own"
        )


def check_cache() -> None:
    """Raise SettingError when the volume for compiled code belongs to another user."""
    if CACHE.is_dir() and not os.access(CACHE, os.W_OK):
        user = f"{os.getuid()}:{os.getgid()}"
        raise SettingError(
            f"the volume engine-cache belongs to another user than {user}: run `docker compose run --rm --no-deps "
            f"--user 0 --cap-add CHOWN --cap-add DAC_OVERRIDE --entrypoint chown vllm -R {user} {CACHE}`"
        )


def missing_instructions(cpu_flags: set[str], machine: str) -> str:
    """Name what vLLM's CPU build needs and this processor lacks; empty for nothing.

    `cpu_flags` are of /proc/cpuinfo, `machine` is of uname. arm64: vLLM's cmake/cpu_extension.cmake (0.32) builds for
    armv8.2-a+dotprod+fp16.
    """
    if machine in {"aarch64", "arm64"}:
        names = {"asimd": "NEON", "asimdhp": "half precision (fp16)", "asimddp": "dot products"}
        return ", ".join(name for flag, name in names.items() if flag not in cpu_flags)
    return "" if cpu_flags & {"avx2", "avx512f"} else "AVX2 or AVX-512"


def check_cpu(settings: Settings, cpu_flags: set[str], machine: str) -> None:
    """Raise SettingError when the engine's CPU build cannot run on this processor."""
    if settings.device == "cpu" and (missing := missing_instructions(cpu_flags, machine)):
        raise SettingError(f"this CPU lacks {missing}, which vLLM needs: use another box, or a GPU (docs/platforms.md)")


def check_memory(settings: Settings, available_bytes: int) -> None:
    """Raise SettingError when a CPU engine cannot fit into `available_bytes`.

    vLLM checks GPU memory itself.
    """
    if settings.device != "cpu":
        return
    gib = 2**30
    weights = _weight_bytes(settings) / gib
    # GiB for interpreter, torch and activations of three processes, measured with vLLM 0.32 on a CPU.
    processes = 2.0
    needed = weights + settings.cpu_kv_cache_gib + processes
    if needed > available_bytes / gib:
        raise SettingError(
            f"MODEL_ID={settings.model_id} needs about {needed:.1f} GiB of memory (weights {weights:.1f}, "
            f"KV cache {settings.cpu_kv_cache_gib:g}, processes {processes:g}) and "
            f"{available_bytes / gib:.1f} GiB is free: choose a smaller model or lower CPU_KV_CACHE_GIB"
        )


def _histogram_edges(settings: Settings) -> dict[str, list[float]]:
    """Bucket edges in seconds by vLLM's family, with the SLO as one of them."""
    return latency_buckets.families(settings.slo_ttft_ms / 1000, settings.slo_tpot_ms / 1000)


def weight_bytes(on_disk: float, config: Mapping[str, object], dtype: str) -> float:
    """Bytes in memory of weights that have `on_disk` bytes, loaded as `dtype`; `config` is the model's config.json."""
    stored = DTYPE_BYTES.get(str(config.get("dtype") or config.get("torch_dtype")), 0)
    loaded = DTYPE_BYTES.get(dtype, 0)
    return on_disk * (loaded / stored if stored and loaded else 1)


def _weight_bytes(settings: Settings) -> float:
    folder = settings.model_path
    # As vLLM loads them: .bin and .pt only where no safetensors are.
    files = list(folder.glob("*.safetensors")) or [*folder.glob("*.bin"), *folder.glob("*.pt")]
    on_disk = sum(path.stat().st_size for path in files)
    try:
        if not (folder / "config.json").exists() and (folder / "params.json").is_file():
            # Mistral's own format; its weights are bfloat16 where it does not say.
            config = {"dtype": "bfloat16", **json.loads((folder / "params.json").read_text())}
        else:
            config = json.loads((folder / "config.json").read_text())
        return weight_bytes(on_disk, config, settings.dtype)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SettingError(
            f"MODEL_ID={settings.model_id} has no config.json that can be read ({type(error).__name__}): "
            "run `docker compose run --rm model verify`, or choose another MODEL_ID or MODEL_REVISION"
        ) from None


def _served_names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split()))
    for name in names:
        if name.startswith("-"):
            raise SettingError(
                f"SERVED_MODEL_NAME has {name}, which vLLM would take for a flag: begin it with a letter"
            )
    return names


def _model_length(text: str) -> str:
    if text != "auto" and not re.fullmatch(r"0*[1-9][0-9]{0,11}", text):
        raise SettingError(f"MAX_MODEL_LEN={text} is not a number of tokens: use for example 2048, or auto")
    return text


def _dtype(text: str) -> str:
    choices = ("auto", *DTYPE_BYTES)
    if text not in choices:
        raise SettingError(f"DTYPE={text} is unknown: use one of {', '.join(choices)}")
    return text


def _number(  # noqa: PLR0913  # a number's name, default, range and kind belong together
    env: Mapping[str, str], name: str, default: float, *, low: float, high: float, whole: bool = False
) -> float:
    text = env.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high or (whole and not value.is_integer()):
        kind = "a whole number" if whole else "a number"
        raise SettingError(f"{name}={text} is not {kind} from {low:g} to {high:g}: the default is {default:g}")
    return value


def _stall_timeout(env: Mapping[str, str]) -> float:
    seconds = _number(env, "ENGINE_STALL_TIMEOUT_S", 120, low=0, high=86_400)
    if 0 < seconds < 30:
        raise SettingError(
            f"ENGINE_STALL_TIMEOUT_S={seconds:g} is less than a busy engine may take for one step: use 30 or more, "
            "or 0 to never end a stalled engine"
        )
    return seconds


def _gpu_ids(env: Mapping[str, str]) -> tuple[str, ...]:
    # CUDA_VISIBLE_DEVICES: as many have it in their shell.
    name = "GPU_IDS" if env.get("GPU_IDS") else "CUDA_VISIBLE_DEVICES"
    text = env.get(name) or ""
    ids = tuple(re.split(r"[\s,]+", text)) if text else ()
    if not all(re.fullmatch(r"[0-9]{1,3}|(?:GPU|MIG)-[0-9A-Fa-f][0-9A-Fa-f/-]*", one) for one in ids):
        raise SettingError(f"{name}={text} is no list of cards: give their numbers or UUIDs by `nvidia-smi -L`, as 0,2")
    if len(set(ids)) < len(ids):
        raise SettingError(f"{name}={text} names a card twice: give each once")
    return ids


def _owner(flag: str) -> str | None:
    """Setting that a flag belongs to; vLLM also takes it with underscores, or cut short."""
    if flag in OWNED_FLAGS:
        return OWNED_FLAGS[flag]
    spelt = flag.replace("_", "-")
    if not re.fullmatch(r"--[a-z][a-z-]*", spelt):
        return None
    return next((setting for owned, setting in OWNED_FLAGS.items() if owned.startswith(spelt)), None)


def _extra_args(text: str) -> tuple[str, ...]:
    try:
        args = tuple(shlex.split(text))
    except ValueError as error:
        raise SettingError(f"VLLM_EXTRA_ARGS cannot be split into words ({error}): check its quotes") from None
    for arg in args:
        if owner := _owner(flag := arg.split("=", 1)[0]):
            raise SettingError(f"VLLM_EXTRA_ARGS has {flag}: use the setting {owner} instead")
    if args and not args[0].startswith("-"):
        raise SettingError(f"VLLM_EXTRA_ARGS starts with {args[0]!r}, which is no flag: flags start with --")
    return args
