"""Kinds of model folders, told by their files: those that vLLM serves, and the cause why not for all others.

Decided from a listing, before anything is fetched. What only a file's content tells is decided as soon as it can be
read: in a folder or archive before the copy, from a hub after the download.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .model_files import ModelFiles

# What vLLM 0.32 loads from the top folder, beside Mistral's consolidated*.safetensors (model_loader/default_loader.py).
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
# Files with the same endings that hold no weights, or weights for others: an adapter's, a trainer's, OpenVINO's.
_NO_WEIGHTS = (
    *("adapter_model*", "training_args.*", "optimizer*", "scheduler*", "scaler*", "rng_state*", "openvino_*"),
    *("*imatrix*", "tokenizer*", "vocab*"),
)
_MISTRAL = "consolidated*.safetensors"
# A pointer is a few lines; git's own limit for one is 1024 bytes.
_POINTER_BYTES = 1024
_POINTERS = (
    b"version https://git-lfs.github.com/spec/",
    b"version https://hawser.github.com/spec/",
    b"/annex/objects/",
)
# Architectures by the end of their name that generate text; others are for pooling: embeddings, scores, classes
# (vllm/config/model.py).
_GENERATING = ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")
_NAMED = 3  # files in a message


def refusal(files: ModelFiles) -> str:
    """Cause why the engine cannot serve these files, and the fix, as a clause; empty when it can."""
    for kind in _KINDS:
        if found := list(kind.found(files)):
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            return kind.cause.format(found=", ".join(found[:_NAMED]) + more)
    return ""


def is_mistral(files: ModelFiles) -> bool:
    """Return whether these are files of Mistral's own format, which has no config.json."""
    return "params.json" in files.sizes and bool(files.top(_MISTRAL))


def generates(files: ModelFiles) -> bool:
    """Return whether the model generates text, as far as its files tell; others compute embeddings or scores."""
    architectures = files.config().get("architectures")
    names = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    # Sentence-transformers' list of steps; vLLM serves such a model for embeddings whatever its architecture.
    return "modules.json" not in files.sizes and (not names or any(name.endswith(_GENERATING) for name in names))


def weights(files: ModelFiles) -> list[str]:
    """The weights that vLLM would load."""
    others = set(files.top(*_NO_WEIGHTS))
    return [path for path in files.top(*_WEIGHTS) if path not in others]


def looks_like_a_model(files: ModelFiles) -> bool:
    """Return whether the top folder is a model's, of whatever kind, and not a folder above one."""
    return bool(files.top("config.json", "params.json", "adapter_config.json", "model_index.json", *_WEIGHTS, *_OTHERS))


@dataclass(frozen=True)
class _Kind:
    """A kind that is refused: the files that mark it, and the cause with the fix."""

    found: Callable[[ModelFiles], Iterable[str]]
    cause: str


def _pointers(files: ModelFiles) -> Iterable[str]:
    for path, size in files.sizes.items():
        if size <= _POINTER_BYTES and files.beginning(path, 64).startswith(_POINTERS):
            yield path


def _without_weights(*patterns: str) -> Callable[[ModelFiles], Iterable[str]]:
    """Mark a kind by files in the top folder, where no weights are that vLLM loads."""
    return lambda files: [] if weights(files) else files.top(*patterns)


def _anywhere_without_weights(*endings: str) -> Callable[[ModelFiles], Iterable[str]]:
    return lambda files: [] if weights(files) else sorted(path for path in files.sizes if path.endswith(endings))


def _ctranslate2(files: ModelFiles) -> Iterable[str]:
    lists = files.top("vocabulary.*", "*_vocabulary.*")
    return files.top("model.bin") if lists and not files.top("*.safetensors", "pytorch_model*.bin") else []


def _mlx(files: ModelFiles) -> Iterable[str]:
    config = files.config()
    described = config.get("quantization_config")
    method = described.get("quant_method") if isinstance(described, dict) else None
    return ["config.json"] if isinstance(config.get("quantization"), dict) and not method else []


def _speech(files: ModelFiles) -> Iterable[str]:
    architectures = files.config().get("architectures")
    names = architectures if isinstance(architectures, list) else []
    return [name for name in names if isinstance(name, str) and name.startswith("Whisper")]


def _models_below(files: ModelFiles) -> Iterable[str]:
    if looks_like_a_model(files):
        return []
    folders = (path.rpartition("/")[0] for path in files.sizes if path.endswith(("/config.json", "/params.json")))
    # In Hugging Face's cache it is the repository's folder: a snapshot alone is links out of it.
    return sorted({re.sub("(^|/)snapshots/[^/]+$", "", folder) for folder in folders})


def _no_config(files: ModelFiles) -> Iterable[str]:
    return [] if "config.json" in files.sizes or is_mistral(files) else (sorted(files.sizes) or ["nothing"])


def _no_weights(files: ModelFiles) -> Iterable[str]:
    return [] if weights(files) else (sorted(files.sizes) or ["nothing"])


# Weights of other programs; with the endings that vLLM reads excluded.
_OTHERS = ("*.gguf", "*.ggml", "*.onnx", "*.h5", "*.msgpack", "*.tflite", "*.pth", "*.nemo", "*.engine", "*.llamafile")
_TAKE = "take the model's repository with config.json and safetensors"

# The first that fits gives the cause.
_KINDS = (
    _Kind(
        _pointers,
        "has pointers of git LFS or git annex in place of files ({found}): run `git lfs pull` or `git annex get .` in "
        "the folder that was cloned",
    ),
    _Kind(
        _without_weights("adapter_config.json"),
        "is an adapter (LoRA), which is nothing without its base model: give the base model as MODEL_ID, and the "
        "adapter as docs/models.md says under LoRA adapters",
    ),
    _Kind(
        _without_weights("*.gguf", "*.ggml", "*.llamafile"),
        f"has its weights as GGUF ({{found}}), which vLLM 0.32 does not load: {_TAKE}",
    ),
    _Kind(
        lambda files: files.top("model_index.json"),
        "is a pipeline of diffusers, which makes pictures: this stack serves text models",
    ),
    _Kind(_ctranslate2, f"is a model of CTranslate2 ({{found}}), which vLLM does not load: {_TAKE}"),
    _Kind(
        lambda files: [] if weights(files) else files.top("zero_to_fp32.py"),
        "is a training checkpoint of DeepSpeed: run its zero_to_fp32.py with --safe_serialization first",
    ),
    _Kind(
        _anywhere_without_weights(".distcp"),
        "is a sharded training checkpoint of PyTorch ({found}): merge it with `accelerate merge-weights` first",
    ),
    _Kind(
        _without_weights("*.pth"),
        f"has its weights in Meta's own format ({{found}}), which vLLM does not load: {_TAKE} (such as one whose "
        "name ends in -hf)",
    ),
    _Kind(
        _anywhere_without_weights(
            *(".onnx", ".h5", ".msgpack", ".tflite", ".ot", ".nemo", ".engine", ".mlpackage", ".mlmodel", ".pb"),
            *("openvino_model.bin", "openvino_model.xml"),
        ),
        f"has weights of another program only ({{found}}): {_TAKE}",
    ),
    _Kind(_mlx, f"is quantised for Apple's MLX, which vLLM does not load: {_TAKE}, unquantised or as AWQ, GPTQ or FP8"),
    _Kind(_speech, "transcribes speech ({found}): this stack serves text models"),
    _Kind(_models_below, "is not a model's own folder; there are models in: {found}; name one of these"),
    _Kind(_no_config, "has no config.json, and so no model that vLLM knows (there is: {found})"),
    _Kind(
        _no_weights,
        "has no weights that vLLM loads (there is: {found}): look at MODEL_ALLOW_PATTERNS and MODEL_IGNORE_PATTERNS, "
        "or name another folder or repository",
    ),
)
