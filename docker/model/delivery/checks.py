"""Checks that an engine can load the model's files, before the delivery as far as they can be read, and after it."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import kinds
from .listing import RemoteFile
from .model_files import ModelFiles
from .settings import Settings

_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model*",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "spiece.model",
    "sentencepiece*.model",
    "*.tiktoken",
)
# Parts of a model's name that mark it as made for chat.
_CHAT_MARKS = ("instruct", "chat", "-it")
# A safetensors file starts with the length of its JSON header, as a little-endian number.
_LENGTH_BYTES = 8


def unlike_listing(folder: Path, files: Iterable[RemoteFile]) -> dict[str, str]:
    """Files that are missing or differ in size from the source's listing: path to problem."""
    found = {}
    for file in files:
        path = folder / file.path
        if not path.is_file():
            found[file.path] = "is missing"
        elif (size := path.stat().st_size) != file.size:
            found[file.path] = f"has {size} bytes, the source lists {file.size}"
    return found


def problems(files: ModelFiles, settings: Settings) -> list[str]:
    """Problems that would keep an engine from serving the model, one clause each; empty for none.

    Of files that cannot be read yet, only what their names tell.
    """
    if cause := kinds.refusal(files):
        return [f"it {cause}"]
    return [
        *_leftovers(files),
        *_config(files),
        *_weights(files),
        *_missing_shards(files),
        *_tokenizer(files),
        *_chat_template(files, settings),
    ]


def _leftovers(files: ModelFiles) -> Iterator[str]:
    for path in sorted(files.sizes):
        if path.endswith(".incomplete"):
            yield f"{path} is half a download"


def _config(files: ModelFiles) -> Iterator[str]:
    name = "params.json" if kinds.is_mistral(files) else "config.json"
    if files.open is not None and not isinstance(files.json(name), dict):
        yield f"{name} is no JSON object"


def _weights(files: ModelFiles) -> Iterator[str]:
    if files.open is None:
        return
    for path in files.top("*.safetensors"):
        if (size := _safetensors_size(files, path)) != files.sizes[path]:
            yield f"{path} has {files.sizes[path]} bytes, its own header says {size}"


def _missing_shards(files: ModelFiles) -> Iterator[str]:
    if files.open is None:
        return
    # Without safetensors only: the index of a form of weights that was left out on purpose has no shards.
    for index in files.top("*.safetensors.index.json") or files.top("*.index.json"):
        document = files.json(index)
        shards = document.get("weight_map") if isinstance(document, dict) else None
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            yield f"{index} cannot be read"
            continue
        for shard in sorted(set(shards.values()) - set(files.sizes)):
            yield f"{index} names {shard}, which is not there: use another MODEL_REVISION, or copy it again"


def _tokenizer(files: ModelFiles) -> Iterator[str]:
    if not files.top(*_TOKENIZERS):
        yield f"there is no tokenizer ({', '.join(_TOKENIZERS)})"


def _chat_template(files: ModelFiles, settings: Settings) -> Iterator[str]:
    name = settings.model_id.rpartition("/")[2].lower()
    if settings.has_chat_template or not any(mark in name for mark in _CHAT_MARKS):
        return
    # Embedding models are called instruct too.
    if files.open is None or not kinds.generates(files):
        return
    # Mistral's tokenizers have their chat format built in.
    if files.top("chat_template.jinja", "chat_template.json", "tekken.json") or kinds.is_mistral(files):
        return
    config = files.json("tokenizer_config.json")
    if not isinstance(config, dict) or not config.get("chat_template"):
        yield "there is no chat template: set CHAT_TEMPLATE to one"


def _safetensors_size(files: ModelFiles, path: str) -> int | None:
    """Size in bytes that a safetensors file's header demands; None when it cannot be read.

    Source: the format's description, https://github.com/huggingface/safetensors#format
    """
    length = int.from_bytes(files.beginning(path, _LENGTH_BYTES), "little")
    if length > files.sizes[path]:
        return None
    try:
        header = json.loads(files.beginning(path, _LENGTH_BYTES + length)[_LENGTH_BYTES:])
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
        return None
    return _LENGTH_BYTES + length + max(ends, default=0)
