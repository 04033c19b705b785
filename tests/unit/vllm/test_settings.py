from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import settings as engine_settings
import supervisor
from delivery import settings as delivery_settings
from settings import SettingError

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "Qwen/Qwen2-0.5B-Instruct"
GIB = 2**30


def read(**env: str) -> engine_settings.Settings:
    return engine_settings.read({"MODEL_ID": MODEL, **env})


def flags(**env: str) -> list[str]:
    return engine_settings.arguments(read(**env))


def served(**env: str) -> list[str]:
    args = flags(**env)
    names = args[args.index("--served-model-name") + 1 :]
    return names[: next(number for number, arg in enumerate(names) if arg.startswith("--"))]


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A models volume with one complete model of 1 GiB in bfloat16 (a sparse file)."""
    model = tmp_path / MODEL
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}))
    with (model / "model.safetensors").open("wb") as weights:
        weights.truncate(GIB)
    (model / "READY").touch()
    monkeypatch.setattr(engine_settings, "MODELS", tmp_path)
    return model


def test_cpu_default_flags() -> None:
    args = flags()
    assert args[0] == f"/models/{MODEL}"
    assert "--dtype=float32" in args
    assert "--enforce-eager" in args
    assert f"--kv-cache-memory-bytes={GIB}" in args
    assert not any(arg.startswith(("--gpu-memory", "--tensor")) for arg in args)


def test_gpu_default_flags() -> None:
    args = flags(ENGINE_DEVICE="gpu", TENSOR_PARALLEL_SIZE="2", GPU_MEMORY_UTILIZATION="0.85")
    assert "--dtype=auto" in args
    assert "--gpu-memory-utilization=0.85" in args
    assert "--tensor-parallel-size=2" in args
    assert "--enforce-eager" not in args
    assert not any(arg.startswith("--kv-cache") for arg in args)


def test_served_name_defaults_to_model_id() -> None:
    assert served() == [MODEL]
    assert served(SERVED_MODEL_NAME="qwen") == ["qwen"]


def test_several_names_are_all_served() -> None:
    assert served(SERVED_MODEL_NAME=" gpt-4  gpt-3.5-turbo gpt-4") == ["gpt-4", "gpt-3.5-turbo"]
    assert read(SERVED_MODEL_NAME="gpt-4 gpt-3.5-turbo").served_model_name == "gpt-4"


def test_blanks_at_the_ends_are_no_part() -> None:
    given = {"MODEL_ID": f"{MODEL} ", "DTYPE": "half\r", "VLLM_EXTRA_ARGS": " ", "CHAT_TEMPLATE": "a.jinja "}
    assert engine_settings.read(given) == read(DTYPE="half", CHAT_TEMPLATE="a.jinja")
    assert delivery_settings.read(given).model_id == MODEL


def test_extra_args_come_last() -> None:
    extra = """--max-num-seqs 64 --override-generation-config '{"temperature": 0}'"""
    assert flags(VLLM_EXTRA_ARGS=extra)[-4:] == [
        "--max-num-seqs",
        "64",
        "--override-generation-config",
        '{"temperature": 0}',
    ]


def test_slo_becomes_a_bucket_edge() -> None:
    [flag] = [arg for arg in flags(SLO_TTFT_MS="420", SLO_TPOT_MS="33") if arg.startswith("--custom-histogram")]
    edges = json.loads(flag.partition("=")[2])
    assert 0.42 in edges["time_to_first_token"]
    assert 0.033 in edges["inter_token_latency"]


def test_api_key_never_reaches_the_command_line() -> None:
    assert not any("s3cret" in arg for arg in flags(VLLM_API_KEY="s3cret"))


def test_grace_period_covers_the_stop() -> None:
    compose = (Path(__file__).parents[3] / "compose.yaml").read_text()
    grace = int(compose.split("stop_grace_period: ")[1].split("s")[0])
    assert grace > supervisor.DRAIN_S + supervisor.LAST_SCRAPE_S + supervisor.END_S


def test_queue_is_bounded_by_default() -> None:
    assert "--max-num-queued-reqs=1024" in flags()
    assert "--max-num-queued-reqs=64" in flags(MAX_CONCURRENT_REQUESTS="64")
    assert not any("queued" in arg for arg in flags(MAX_CONCURRENT_REQUESTS="0"))


def test_stall_timeout_is_two_minutes() -> None:
    assert read().stall_timeout_s == 120
    assert read(ENGINE_STALL_TIMEOUT_S="0").stall_timeout_s == 0


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"MODEL_ID": ""}, "MODEL_ID"),
        ({"ENGINE_DEVICE": "tpu"}, "ENGINE_DEVICE=tpu"),
        ({"MAX_MODEL_LEN": "2k tokens"}, "MAX_MODEL_LEN=2k tokens"),
        ({"MAX_MODEL_LEN": "0"}, "MAX_MODEL_LEN=0"),
        ({"DTYPE": "int4"}, "DTYPE=int4"),
        ({"CPU_KV_CACHE_GIB": "lots"}, "CPU_KV_CACHE_GIB=lots"),
        ({"CPU_KV_CACHE_GIB": "-1"}, "CPU_KV_CACHE_GIB=-1"),
        ({"GPU_MEMORY_UTILIZATION": "90"}, "GPU_MEMORY_UTILIZATION=90"),
        ({"TENSOR_PARALLEL_SIZE": "1.5"}, "TENSOR_PARALLEL_SIZE=1.5"),
        ({"MAX_CONCURRENT_REQUESTS": "many"}, "MAX_CONCURRENT_REQUESTS=many"),
        ({"ENGINE_STALL_TIMEOUT_S": "5"}, "ENGINE_STALL_TIMEOUT_S=5"),
        ({"SLO_TTFT_MS": "fast"}, "SLO_TTFT_MS=fast"),
        ({"SLO_TPOT_MS": "0"}, "SLO_TPOT_MS=0"),
        ({"VLLM_EXTRA_ARGS": "--custom-histogram-buckets={}"}, "SLO_TTFT_MS"),
        ({"VLLM_EXTRA_ARGS": "--foo 'bar"}, "VLLM_EXTRA_ARGS"),
        ({"VLLM_EXTRA_ARGS": "serve --foo"}, "VLLM_EXTRA_ARGS"),
        ({"VLLM_EXTRA_ARGS": "--port=9000"}, "VLLM_PORT"),
        ({"VLLM_EXTRA_ARGS": "--max-model-len 10"}, "MAX_MODEL_LEN"),
        ({"SERVED_MODEL_NAME": "gpt-4 --api-key"}, "SERVED_MODEL_NAME has --api-key"),
    ],
)
def test_wrong_setting_is_one_line(env: dict[str, str], named: str) -> None:
    with pytest.raises(SettingError) as error:
        read(**env)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "flag",
    # As vLLM's parser takes them: underscores for dashes, and cut short.
    sorted(
        {f"--{flag[2:].replace('-', '_')}" for flag in engine_settings.OWNED_FLAGS if flag.startswith("--")}
        | set(engine_settings.OWNED_FLAGS)
        | {"--max-model", "--api_k", "--served_model"}
    ),
)
def test_owned_flag_is_refused_however_spelt(flag: str) -> None:
    for given in (f"--max-num-seqs 8 {flag} s3cret", f"{flag}=s3cret"):
        with pytest.raises(SettingError, match=f"VLLM_EXTRA_ARGS has {flag}:"):
            read(VLLM_EXTRA_ARGS=given)


def test_flags_of_nobody_are_passed_on() -> None:
    extra = "--chat-template-content-format string --enable_lora --model-impl vllm -- -x"
    assert flags(VLLM_EXTRA_ARGS=extra)[-7:] == extra.split()


def test_model_length_may_be_auto() -> None:
    assert "--max-model-len=auto" in flags(MAX_MODEL_LEN="auto")


def test_incomplete_model_is_refused(volume: Path) -> None:
    engine_settings.check_files(read())
    (volume / "READY").unlink()
    with pytest.raises(SettingError, match=r"is not complete.*docker compose logs model"):
        engine_settings.check_files(read())


def test_missing_chat_template_is_named(volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert volume.is_dir()
    monkeypatch.setattr(engine_settings, "CHAT_TEMPLATES", tmp_path)
    (tmp_path / "qwen.jinja").touch()
    engine_settings.check_files(read(CHAT_TEMPLATE="qwen.jinja"))
    with pytest.raises(SettingError, match=r"CHAT_TEMPLATE=nope.jinja.*there: qwen.jinja"):
        engine_settings.check_files(read(CHAT_TEMPLATE="nope.jinja"))


def test_unsupported_cpu_is_refused() -> None:
    engine_settings.check_cpu(read(), {"sse4_2", "avx2"}, "x86_64")
    engine_settings.check_cpu(read(ENGINE_DEVICE="gpu"), {"sse4_2"}, "x86_64")
    with pytest.raises(SettingError, match="AVX2"):
        engine_settings.check_cpu(read(), {"sse4_2"}, "x86_64")
    engine_settings.check_cpu(read(), {"asimd", "asimdhp", "asimddp"}, "aarch64")
    with pytest.raises(SettingError, match=r"lacks half precision \(fp16\), dot products"):
        engine_settings.check_cpu(read(), {"fp", "asimd", "crc32"}, "aarch64")


def test_memory_check_uses_the_dtype(volume: Path) -> None:
    assert volume.is_dir()
    # 1 GiB in bfloat16 is 2 GiB in float32; with 1 GiB of KV cache and 2 GiB of processes 5 GiB.
    engine_settings.check_memory(read(), int(5.1 * GIB))
    with pytest.raises(SettingError, match=r"weights 2.0, KV cache 1.*CPU_KV_CACHE_GIB"):
        engine_settings.check_memory(read(), int(4.9 * GIB))
    engine_settings.check_memory(read(DTYPE="bfloat16"), int(4.1 * GIB))


def test_memory_check_knows_other_formats(volume: Path) -> None:
    # 1 GiB of bfloat16 as above, in Mistral's format and as .bin.
    (volume / "config.json").rename(volume / "params.json")
    (volume / "model.safetensors").rename(volume / "consolidated.safetensors")
    (volume / "params.json").write_text('{"dim": 64}')
    with pytest.raises(SettingError, match=r"weights 2\.0"):
        engine_settings.check_memory(read(), GIB)
    (volume / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}))
    (volume / "consolidated.safetensors").rename(volume / "pytorch_model.bin")
    with pytest.raises(SettingError, match=r"weights 2\.0"):
        engine_settings.check_memory(read(), GIB)


def test_gpu_memory_is_not_checked(volume: Path) -> None:
    assert volume.is_dir()
    engine_settings.check_memory(read(ENGINE_DEVICE="gpu"), 0)
