"""Model folders that the engine can serve, told by their files, and why not the others."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from delivery import checks
from delivery.listing import Listing, RemoteFile, select
from delivery.model_files import ModelFiles
from delivery.settings import read

CONFIG = json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
WEIGHTS = b"\x02" + bytes(7) + b"{}"  # a safetensors file without tensors
BASE = {"config.json": CONFIG, "tokenizer.json": "{}", "tokenizer_config.json": "{}"}
WHOLE: Mapping[str, str | bytes] = {**BASE, "model.safetensors": WEIGHTS}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "a" + "\nsize 988097824\n"
MLX = {"quantization": {"group_size": 64, "bits": 4}, "quantization_config": {"group_size": 64, "bits": 4}}
GPTQ = {"quantization": {"bits": 4}, "quantization_config": {"quant_method": "gptq"}}


def put(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def said(files: ModelFiles, name: str = "owner/tiny") -> str:
    return "; ".join(checks.problems(files, read({"MODEL_ID": name})))


def config(**more: object) -> str:
    return json.dumps({**json.loads(CONFIG), **more})


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (WHOLE, "tiny"),
        ({**BASE, "pytorch_model.bin": "w", "training_args.bin": "t"}, "tiny"),
        ({**WHOLE, "adapter_config.json": "{}"}, "tiny"),
        ({**WHOLE, "config.json": config(**GPTQ)}, "tiny"),
        ({"params.json": "{}", "consolidated.safetensors": WEIGHTS, "tekken.json": "{}"}, "tiny-instruct"),
        ({"params.json": "{}", "consolidated.safetensors": WEIGHTS, "tokenizer.model.v3": "x"}, "tiny-instruct"),
        # Embedding and reranking models need no chat template, whatever they are called.
        ({**WHOLE, "modules.json": "[]", "1_Pooling/config.json": "{}"}, "e5-mistral-7b-instruct"),
        ({**WHOLE, "config.json": config(architectures=["XLMRobertaModel"])}, "multilingual-e5-large-instruct"),
        ({**WHOLE, "config.json": config(architectures=["Qwen3ForSequenceClassification"])}, "rerank-instruct"),
    ],
)
def test_served_kinds_have_no_problem(tmp_path: Path, files: Mapping[str, str | bytes], name: str) -> None:
    folder = put(tmp_path, files)
    assert said(ModelFiles.in_folder(folder), f"owner/{name}") == ""


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ({"adapter_config.json": "{}", "adapter_model.safetensors": WEIGHTS}, "adapter (LoRA)"),
        ({**BASE, "adapter_config.json": "{}", "adapter_model.bin": "w"}, "adapter (LoRA)"),
        ({"a-Q4_K_M.gguf": "GGUF", "a-Q8_0.gguf": "GGUF"}, "GGUF (a-Q4_K_M.gguf, a-Q8_0.gguf)"),
        ({**BASE, "a.gguf": "GGUF"}, "GGUF"),
        ({"params.json": "{}", "consolidated.00.pth": "w", "tokenizer.model": "x"}, "Meta's own format"),
        ({"model_index.json": "{}", "unet/config.json": "{}"}, "diffusers"),
        ({**BASE, "model.bin": "w", "vocabulary.json": "[]"}, "CTranslate2"),
        ({**BASE, "zero_to_fp32.py": "", "global_step9/mp_rank_00_model_states.pt": "w"}, "DeepSpeed"),
        ({**BASE, "pytorch_model_fsdp_0/__0_0.distcp": "w"}, "sharded training checkpoint"),
        ({**BASE, "onnx/model.onnx": "w"}, "weights of another program only (onnx/model.onnx)"),
        ({**BASE, "openvino_model.bin": "w", "openvino_model.xml": "x"}, "weights of another program"),
        ({**BASE, "tf_model.h5": "w"}, "weights of another program only (tf_model.h5)"),
        ({**BASE, "training_args.bin": "t", "optimizer.pt": "o"}, "has no weights that vLLM loads"),
        ({"acme/Tiny/config.json": CONFIG, "acme/Tiny/model.safetensors": WEIGHTS}, "there are models in: acme/Tiny;"),
        (
            {"models--acme--Tiny/snapshots/c1/config.json": CONFIG, "models--acme--Tiny/blobs/x": CONFIG},
            "there are models in: models--acme--Tiny;",
        ),
        ({"readme.txt": "?"}, "has no config.json, and so no model that vLLM knows (there is: readme.txt)"),
        ({"tokenizer.json": "{}", "model.safetensors": WEIGHTS}, "has no config.json"),
    ],
)
def test_cause_is_known_from_names(tmp_path: Path, files: Mapping[str, str | bytes], cause: str) -> None:
    folder = put(tmp_path, files)
    there = ModelFiles.in_folder(folder)
    assert cause in said(there)
    # Before a byte is fetched from a hub.
    listing = Listing(tuple(RemoteFile(path, size) for path, size in there.sizes.items()))
    assert cause in said(ModelFiles.listed(select(listing, (), ()).files))


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ({"model.safetensors": POINTER}, "pointers of git LFS or git annex in place of files (model.safetensors)"),
        ({"tokenizer.json": POINTER}, "(tokenizer.json)"),
        ({"model.safetensors": "/annex/objects/SHA256E-s9--ab.safetensors\n"}, "git annex"),
        ({"config.json": config(**MLX)}, "quantised for Apple's MLX"),
        ({"config.json": config(architectures=["WhisperForConditionalGeneration"])}, "transcribes speech"),
    ],
)
def test_cause_is_known_from_content(tmp_path: Path, files: Mapping[str, str | bytes], cause: str) -> None:
    folder = put(tmp_path, {**WHOLE, **files})
    there = ModelFiles.in_folder(folder)
    assert cause in said(there)
    assert said(ModelFiles(there.sizes)) == "", "nothing is said of a file that was not read"


def test_many_files_are_counted() -> None:
    files = ModelFiles({f"{number}.gguf": 1 for number in range(9)})
    assert "GGUF (0.gguf, 1.gguf, 2.gguf and 6 more)" in said(files)
