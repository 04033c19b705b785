"""Real log lines of vLLM 0.32.0, from engines started with each mistake."""

import pytest
from failure_causes import explain

PREFIX = "(APIServer pid=7) INFO 11-23 10:40:13 [model.py:733] Resolved architecture: LlamaForCausalLM\n"
ENGINE_FAILED = (
    "(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. "
    "Failed core proc(s): {'EngineCore': 1}\n"
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


def test_error_in_a_warning_is_ignored() -> None:
    log = (
        "(APIServer pid=8) WARNING 11-25 05:43:46 [system_utils.py:255] Found ulimit of 20000 and failed to "
        "automatically increase. Errors like `OSError: [Errno 24] Too many open files` may come\n"
        "(APIServer pid=8) ERROR 11-25 06:54:24 [async_llm.py:708] vllm.v1.engine.exceptions.EngineDeadError: gone\n"
    )
    assert explain(log, 0).endswith("says why: vllm.v1.engine.exceptions.EngineDeadError: gone")
