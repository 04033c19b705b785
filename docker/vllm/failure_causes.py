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
        r"(?:Failed to load the model config\. If the model is a custom model"
        r"|requires you to execute the (?:configuration|model) file"
        r"|contains custom code which must be executed"
        r"|Please pass the argument `trust_remote_code=True`)",
        "MODEL_ID names a model with code of its own, which vLLM runs only when told to: read that code, then set "
        "VLLM_EXTRA_ARGS=--trust-remote-code, or choose another MODEL_ID",
    ),
    _cause(
        r"Model architecture (?P<arch>\S+) was supported in vLLM until (?P<last>v[\d.]*\d)",
        "MODEL_ID has the architecture {arch}, which vLLM had until {last}: choose another MODEL_ID",
    ),
    _cause(
        r"Model architectures? (?:\[)?(?P<arch>[^\]\n]+?)\]? (?:are|is) not supported (?:for now|in-tree)",
        "MODEL_ID has the architecture {arch}, which this vLLM does not know: choose another MODEL_ID, or a newer vLLM",
    ),
    _cause(
        r"has model type `(?P<kind>[^`]+)` but Transformers does not recognize",
        "MODEL_ID has the model type {kind}, which this vLLM does not know: choose another MODEL_ID, or a newer vLLM",
    ),
    _cause(
        r"quantization method (?P<how>\S+) is not supported for the current GPU\. Minimum capability: (?P<least>\d+)\. "
        r"Current capability: (?P<have>\d+)",
        "MODEL_ID is quantised with {how}, which needs a card of compute capability {least} (75 is 7.5) and this one "
        "has {have}: choose a MODEL_ID with another quantisation, or none",
    ),
    _cause(
        r"(?P<how>\S+) quantization is currently not supported in (?P<device>[^.\n\[]+)",
        "MODEL_ID is quantised with {how}, which vLLM cannot do on this device ({device}): choose a MODEL_ID with "
        "another quantisation, or none",
    ),
    _cause(
        r"Unknown quantization method: (?P<how>[^\s.]+)\.",
        "MODEL_ID is quantised with {how}, which this vLLM does not know: choose a MODEL_ID with another quantisation, "
        "or none",
    ),
    _cause(
        r"torch\.(?P<asked>\w+) is not supported for quantization method (?P<how>\S+)\. Supported dtypes: "
        r"\[(?P<takes>[^\]\n]+)",
        "MODEL_ID is quantised with {how}, which does not go with DTYPE={asked}: set DTYPE to one of {takes}, or "
        "choose a MODEL_ID without quantisation",
    ),
    _cause(
        r"Failed to find a kernel that can implement the (?P<how>\S+) linear layer",
        "MODEL_ID is quantised in a way ({how}) for which vLLM has no kernel on this device: choose a MODEL_ID with "
        "another quantisation, or none",
    ),
    _cause(
        r"NVIDIA driver on your system is too old \(found version (?P<found>\d+)\)"
        r"|CUDA driver version is insufficient for CUDA runtime version"
        r"|unsupported display driver / cuda driver combination",
        "the NVIDIA driver is too old for this image's CUDA 13, which needs driver 580 or newer: update the driver, or "
        "use the image whose tag ends in -cu129 (docs/troubleshooting.md)",
    ),
    _cause(
        r"Found GPU\d+ (?P<card>.+?) which is of compute capability \(CC\) (?P<have>[\d.]+\d)[\s\S]*?no kernel image",
        "{card} has compute capability {have}, for which this image has no kernels: vLLM's images need 7.5 (Turing) or "
        "newer; take another card with GPU_IDS, or for one that is newer than the image a newer image",
    ),
    _cause(
        r"no kernel image is available",
        "this image has no kernels for the card: vLLM's images need compute capability 7.5 (Turing) or newer; take "
        "another card with GPU_IDS, or for one that is newer than the image a newer image",
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
            found = matches[-1].groupdict(default="a smaller number")
            return cause.advice.format(**{name: text.replace("torch.", "") for name, text in found.items()})
    if exit_code in (-9, 137):
        return (
            "the engine was killed, most often because memory ran out: lower CPU_KV_CACHE_GIB, "
            "or choose a smaller MODEL_ID"
        )
    reason = _reason(flat)
    return f"the engine stopped with exit code {exit_code}; the log above says why{reason and f': {reason}'}"


def _reason(flat: str) -> str:
    """First error of a log, or for a check of vLLM's configuration what it found; empty for none."""
    # pydantic gives the count of errors first, then each with its field, if it is of one, and the values.
    if found := re.search(r"validation errors? for \w+\n(?:(?P<field>[\w.]+)\n)?(?P<reason>.+)", flat):
        reason = re.sub(r"^(?:Value error|Assertion failed), | \[type=.*", "", found["reason"])
        return f"{found['field']}: {reason}" if found["field"] else reason
    # Warnings may mention errors that did not happen.
    errors = re.findall(r"^(?!.* WARNING ).*?((?:\w+\.)*\w*(?:Error|Exception): .+)$", flat, re.MULTILINE)
    return errors[0] if errors else ""
