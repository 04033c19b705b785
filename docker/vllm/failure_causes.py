"""Known causes of a failed start: from vLLM's log to one line that names the setting and the fix."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """A pattern of vLLM's log, and advice that may use the pattern's groups."""

    pattern: re.Pattern[str]
    advice: str


def _cause(pattern: str, advice: str) -> Cause:
    return Cause(re.compile(pattern, re.IGNORECASE), advice)


# Texts of vLLM 0.32.0; tests/unit/vllm/test_failure_causes.py has real log lines of each.
CAUSES = (
    _cause(
        r"unrecognized arguments: (?P<flags>.+)",
        "VLLM_EXTRA_ARGS has a flag that vLLM does not know: {flags}; list them with "
        "`docker compose run --rm --no-deps --entrypoint vllm vllm serve --help=all`",
    ),
    _cause(
        r"error: argument (?P<flag>\S+?):? (?P<why>.+)",
        "VLLM_EXTRA_ARGS has a wrong value for {flag} {why}",
    ),
    _cause(
        r"max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len "
        r"\((?:max_position_embeddings=)?(?P<most>\d+)",
        "MAX_MODEL_LEN={asked} is more than this model can take: set MAX_MODEL_LEN={most} or less",
    ),
    _cause(
        r"max seq len \((?P<asked>\d+)\), \((?P<need>[\d.]+) GiB KV\s+cache is needed.*?"
        r"available KV cache\s+memory \((?P<have>[\d.]+) GiB\)(?:.*?maximum model length is (?P<most>\d+))?",
        "MAX_MODEL_LEN={asked} needs {need} GiB of KV cache and {have} GiB is there: set MAX_MODEL_LEN={most} "
        "or less, or raise CPU_KV_CACHE_GIB (CPU) or GPU_MEMORY_UTILIZATION (GPU)",
    ),
    _cause(
        r"No available memory for the cache blocks",
        "no memory is left for the KV cache: raise GPU_MEMORY_UTILIZATION, or choose a smaller MODEL_ID or DTYPE",
    ),
    _cause(
        r"Free memory on device .*?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\).*?is less than desired",
        "{free} of {total} GiB of GPU memory is free, less than GPU_MEMORY_UTILIZATION asks for: end the other "
        "process that holds it (`nvidia-smi` lists them), or lower GPU_MEMORY_UTILIZATION",
    ),
    _cause(
        r"CUDA out of memory",
        "the GPU's memory does not hold the model: lower MAX_MODEL_LEN or GPU_MEMORY_UTILIZATION, or choose a "
        "smaller MODEL_ID",
    ),
    _cause(
        r"World size \((?P<asked>\d+)\) is larger than the number of available GPUs \((?P<have>\d+)\)",
        "TENSOR_PARALLEL_SIZE={asked} and {have} GPUs are there: set it to {have} or less",
    ),
    _cause(
        r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<asked>\d+)\)",
        "TENSOR_PARALLEL_SIZE={asked} does not divide the model's {heads} attention heads: use a divisor of it",
    ),
    _cause(
        r"Bfloat16 is only supported on GPUs",
        "this GPU has no bfloat16: set DTYPE=half",
    ),
    _cause(
        r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver",
        "the container sees no GPU: install the NVIDIA Container Toolkit, or leave compose.gpu.yaml out",
    ),
)


def explain(log: str, exit_code: int) -> str:
    """Explain in one line why the engine stopped and which setting to change.

    `log` is the end of its output; the first cause that matches wins, with its last matching line.
    """
    flat = re.sub(r"\s*\n\s*", "\n", log)
    for cause in CAUSES:
        if matches := list(cause.pattern.finditer(flat)):
            return cause.advice.format(**matches[-1].groupdict(default="a smaller number"))
    if exit_code in (-9, 137):
        return (
            "the engine was killed, most often because memory ran out: lower CPU_KV_CACHE_GIB, "
            "or choose a smaller MODEL_ID"
        )
    # Warnings may mention errors that did not happen.
    errors = re.findall(r"^(?!.* WARNING ).*?((?:\w+\.)*\w*(?:Error|Exception): .+)$", flat, re.MULTILINE)
    cause_line = f": {errors[0]}" if errors else ""
    return f"the engine stopped with exit code {exit_code}; the log above says why{cause_line}"
