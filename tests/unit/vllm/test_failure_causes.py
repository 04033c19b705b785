"""Real log lines of vLLM 0.32.0, from engines started with each mistake.

Those of GPUs are from the sources of vLLM 0.32.0 and torch 2.13, and from public reports.
"""

# ruff: noqa: E501, ISC004  # lines of a log

import pytest
from failure_causes import explain

PREFIX = "(APIServer pid=7) INFO 11-23 10:40:13 [model.py:733] Resolved architecture: LlamaForCausalLM\n"
ENGINE_FAILED = (
    "(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. "
    "Failed core proc(s): {'EngineCore': 1}\n"
)

VALIDATION = "pydantic_core._pydantic_core.ValidationError: 1 validation error for {}\n"
TYPE = (
    " [type=value_error, input_value=ArgsKwargs((), {'model_co... 'shutdown_timeout': 0}), input_type=ArgsKwargs]\n"
    "    For further information visit https://errors.pydantic.dev/2.14/v/value_error\n"
)

CASES = {
    "unknown flag": (
        "vllm: error: unrecognized arguments: --no-such-flag 1\n",
        2,
        ["VLLM_EXTRA_ARGS", "--no-such-flag 1", "--help"],
    ),
    "wrong value": (
        "vllm serve: error: argument --max-num-seqs: invalid int value: 'abc'\n",
        2,
        ["VLLM_EXTRA_ARGS", "--max-num-seqs", "abc"],
    ),
    "longer than the model": (
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, User-specified max_model_len (100000) is greater than the derived max_model_len "
            "(max_position_embeddings=8192.0 or model_max_length=None in model's config.json). To allow ...\n"
        ),
        1,
        ["MAX_MODEL_LEN=100000", "MAX_MODEL_LEN=8192 or less"],
    ),
    "longer than the KV cache": (
        "(EngineCore pid=25) ValueError: To serve at least one request with the model's max seq len (8192), (0.18 GiB "
        "KV cache is needed, which is larger than the available KV cache memory (0.09 GiB). Based on the available "
        "memory, the estimated maximum model length is 4352. Try increasing `gpu_memory_utilization` ...\n"
        + ENGINE_FAILED,
        1,
        ["MAX_MODEL_LEN=8192", "0.18 GiB", "0.09 GiB", "MAX_MODEL_LEN=4352 or less", "CPU_KV_CACHE_GIB"],
    ),
    "heads not divisible": (
        (
            "  Value error, Total number of attention heads (9) must be divisible by tensor parallel size (4). "
            "[type=value_error, input_value=ArgsKwargs((), {'model_co...'shutdown_timeout': 30})]\n"
        ),
        1,
        ["TENSOR_PARALLEL_SIZE=4", "9 attention heads"],
    ),
    "GPU memory taken": (
        "(EngineCore pid=99) ValueError: Free memory on device cuda:0 (3.21/23.68 GiB) on startup is less than desired "
        "GPU memory utilization (0.9, 21.31 GiB). Decrease GPU memory utilization or reduce GPU memory used by other "
        "processes.\n" + ENGINE_FAILED,
        1,
        ["3.21 of 23.68 GiB", "GPU_MEMORY_UTILIZATION"],
    ),
    "no GPU": (
        (
            "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` "
            "to turn on verbose logging to help debug the issue.\n"
        ),
        1,
        ["no GPU", "NVIDIA Container Toolkit", "compose.gpu.yaml"],
    ),
    "old GPU": (
        (
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. "
            "Your Tesla T4 GPU has compute capability 7.5.\n"
        ),
        1,
        ["DTYPE=half"],
    ),
    "too many GPUs asked for": (
        "World size (4) is larger than the number of available GPUs (2) in this node. If this is intentional ...\n",
        1,
        ["TENSOR_PARALLEL_SIZE=4", "2 or less"],
    ),
    "unknown model type": (
        VALIDATION.format("ModelConfig")
        + "  Value error, The checkpoint you are trying to load has model type `qwen9_moe` but Transformers does not "
        "recognize this architecture. This could be because of an issue with the checkpoint, or because your version of "
        "Transformers is out of date.\n\nYou can update Transformers with the command ...\n",
        1,
        ["MODEL_ID", "model type qwen9_moe"],
    ),
    "unknown architecture": (
        VALIDATION.format("ModelConfig")
        + "  Value error, Model architectures ['MyLlamaForCausalLM'] are not supported for now. Supported architectures: "
        "dict_keys(['AfmoeForCausalLM', 'ApertusForCausalLM'])" + TYPE,
        1,
        ["MODEL_ID", "'MyLlamaForCausalLM', which this vLLM does not know"],
    ),
    "architecture of former versions": (
        VALIDATION.format("ModelConfig")
        + "  Value error, Model architecture MotifForCausalLM was supported in vLLM until v0.10.2, and is not supported "
        "anymore. Please use an older version of vLLM if you want to use this model architecture." + TYPE,
        1,
        ["MotifForCausalLM", "until v0.10.2"],
    ),
    "custom code": (
        "(APIServer pid=16) ERROR 11-30 11:39:02 [repo_utils.py:124] Error parsing config for /m/remote: The repository "
        "/m/remote contains custom code which must be executed to correctly load the model.\n"
        + VALIDATION.format("ModelConfig")
        + "  Value error, The repository /m/remote contains custom code which must be executed to correctly load the "
        "model. You can inspect the repository content at /m/remote .\n"
        "Please pass the argument `trust_remote_code=True` to allow custom code to be run." + TYPE,
        1,
        ["code of its own", "VLLM_EXTRA_ARGS=--trust-remote-code"],
    ),
    "custom configuration": (
        "RuntimeError: Failed to load the model config. If the model is a custom model not yet available in the "
        "HuggingFace transformers library, consider setting `trust_remote_code=True` in LLM or using the "
        "`--trust-remote-code` flag in the CLI.\n",
        1,
        ["VLLM_EXTRA_ARGS=--trust-remote-code"],
    ),
    "quantisation and number format": (
        VALIDATION.format("VllmConfig")
        + "  Value error, torch.float32 is not supported for quantization method awq. Supported dtypes: [torch.float16, "
        "torch.bfloat16]" + TYPE,
        1,
        ["quantised with awq", "DTYPE=float32", "DTYPE to one of float16, bfloat16"],
    ),
    "quantisation of another device": (
        VALIDATION.format("ModelConfig")
        + "  Value error, modelopt quantization is currently not supported in rocm."
        + TYPE,
        1,
        ["quantised with modelopt", "on this device (rocm)"],
    ),
    "quantisation of a newer card": (
        VALIDATION.format("VllmConfig")
        + "  Value error, The quantization method modelopt is not supported for the current GPU. Minimum capability: 89. "
        "Current capability: 75." + TYPE,
        1,
        ["quantised with modelopt", "89", "75"],
    ),
    "unknown quantisation": (
        VALIDATION.format("ModelConfig")
        + "  Value error, Unknown quantization method: quip9. Must be one of ['awq', 'fp8', 'fbgemm_fp8']."
        + TYPE,
        1,
        ["quantised with quip9", "does not know"],
    ),
    "quantisation without a kernel": (
        "(EngineCore pid=99) ValueError: Failed to find a kernel that can implement the WNA16 linear layer. Reasons: \n"
        " MacheteLinearKernel cannot implement due to: Machete requires compute capability of 90 (Hopper)\n"
        + ENGINE_FAILED,
        1,
        ["MODEL_ID", "quantised in a way (WNA16)"],
    ),
    "old driver": (
        "(EngineCore pid=99) RuntimeError: The NVIDIA driver on your system is too old (found version 12080). Please "
        "update your GPU driver by downloading and installing a new version from the URL: "
        "http://www.nvidia.com/Download/index.aspx Alternatively, go to: https://pytorch.org to install a PyTorch "
        "version that has been compiled with your version of the CUDA driver.\n" + ENGINE_FAILED,
        1,
        ["driver 580 or newer", "-cu129"],
    ),
    "driver of another branch": (
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
        "NumCudaDevices() that might have already set an error? Error 803: system has unsupported display driver / cuda "
        "driver combination\n" + ENGINE_FAILED,
        1,
        ["driver 580 or newer", "-cu129"],
    ),
    "old card": (
        "(EngineCore pid=99) /usr/local/lib/python3.12/dist-packages/torch/cuda/__init__.py:424: UserWarning: Found GPU0 "
        "Tesla V100-PCIE-16GB which is of compute capability (CC) 7.0.\n"
        "The following list shows the CCs this version of PyTorch was built for and the hardware CCs it supports:\n"
        "- 7.5 which supports hardware CC >=7.5,<8.0\n"
        "(EngineCore pid=99) torch.AcceleratorError: CUDA error: no kernel image is available for execution on the "
        "device\n" + ENGINE_FAILED,
        1,
        ["Tesla V100-PCIE-16GB has compute capability 7.0", "7.5 (Turing)", "GPU_IDS"],
    ),
    "no kernel for the card": (
        "(EngineCore pid=99) RuntimeError: CUDA error: no kernel image is available for execution on the device\n"
        "CUDA kernel errors might be asynchronously reported at some other API call\n" + ENGINE_FAILED,
        1,
        ["7.5 (Turing)", "newer image"],
    ),
    "killed": ("", -9, ["memory ran out", "CPU_KV_CACHE_GIB"]),
}


@pytest.mark.parametrize(("log", "code", "said"), CASES.values(), ids=CASES.keys())
def test_known_failure_names_the_setting(log: str, code: int, said: list[str]) -> None:
    line = explain(PREFIX + log, code)
    assert "\n" not in line
    for part in said:
        assert part in line


def test_unknown_failure_shows_first_error() -> None:
    log = PREFIX + "ValueError: something new\n" + ENGINE_FAILED
    assert "exit code 1" in explain(log, 1)
    assert "ValueError: something new" in explain(log, 1)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "  Value error, Something that nobody has met: 1 > 0" + TYPE,
            "says why: Something that nobody has met: 1 > 0",
        ),
        (
            "block_size\n  Input should be greater than 0 [type=greater_than, input_value=0, input_type=int]\n",
            "says why: block_size: Input should be greater than 0",
        ),
    ],
)
def test_unknown_check_shows_its_reason(said: str, reason: str) -> None:
    assert explain(PREFIX + VALIDATION.format("CacheConfig") + said, 1).endswith(reason)


def test_old_card_that_is_not_used_is_no_cause() -> None:
    warning = "UserWarning: Found GPU1 Quadro P400 which is of compute capability (CC) 6.1.\n"
    assert "no kernels" not in explain(warning + "ValueError: something new\n", 1)


def test_error_in_a_warning_is_ignored() -> None:
    log = (
        "(APIServer pid=8) WARNING 11-25 05:43:46 [system_utils.py:255] Found ulimit of 20000 and failed to "
        "automatically increase. Errors like `OSError: [Errno 24] Too many open files` may come\n"
        "(APIServer pid=8) ERROR 11-25 06:54:24 [async_llm.py:708] vllm.v1.engine.exceptions.EngineDeadError: gone\n"
    )
    assert explain(log, 0).endswith("says why: vllm.v1.engine.exceptions.EngineDeadError: gone")
