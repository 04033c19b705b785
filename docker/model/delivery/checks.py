"""Checks after the download: the folder holds a complete model that an engine can load."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .listing import RemoteFile
from .settings import Settings

_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "spiece.model",
    "*.tiktoken",
)
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.pth")
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


def problems(folder: Path, settings: Settings) -> list[str]:
    """Problems that would keep an engine from serving the model, one clause each; empty for none."""
    return [
        *_leftovers(folder),
        *_config(folder),
        *_weights(folder),
        *_missing_shards(folder),
        *_tokenizer(folder),
        *_chat_template(folder, settings),
    ]


def _leftovers(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.incomplete")):
        yield f"{path.relative_to(folder)} is half a download"


def _config(folder: Path) -> Iterator[str]:
    path = folder / "config.json"
    if not path.is_file():
        yield "config.json is missing: this repository holds no model that the engine knows"
    elif not isinstance(_json(path), dict):
        yield "config.json is no JSON object"


def _weights(folder: Path) -> Iterator[str]:
    if not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
        yield "there are no weights: look at MODEL_ALLOW_PATTERNS and MODEL_IGNORE_PATTERNS"
    for path in sorted(folder.glob("*.safetensors")):
        if (size := _safetensors_size(path)) != path.stat().st_size:
            yield f"{path.name} has {path.stat().st_size} bytes, its own header says {size}"


def _missing_shards(folder: Path) -> Iterator[str]:
    # Without safetensors only: the index of a form of weights that was left out on purpose has no shards.
    safetensors = sorted(folder.glob("*.safetensors.index.json"))
    for index in safetensors or sorted(folder.glob("*.index.json")):
        document = _json(index)
        shards = document.get("weight_map") if isinstance(document, dict) else None
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            yield f"{index.name} cannot be read"
            continue
        for shard in sorted(set(shards.values())):
            if not _is_file(folder / shard):
                yield f"{index.name} names {shard}, which the source does not have: use another MODEL_REVISION"


def _tokenizer(folder: Path) -> Iterator[str]:
    if not any(next(folder.glob(pattern), None) for pattern in _TOKENIZERS):
        yield f"there is no tokenizer ({', '.join(_TOKENIZERS)})"


def _chat_template(folder: Path, settings: Settings) -> Iterator[str]:
    name = settings.model_id.rpartition("/")[2].lower()
    if settings.has_chat_template or not any(mark in name for mark in _CHAT_MARKS):
        return
    # A tekken tokenizer has its chat format built in.
    if any((folder / place).is_file() for place in ("chat_template.jinja", "chat_template.json", "tekken.json")):
        return
    config = _json(folder / "tokenizer_config.json")
    if not isinstance(config, dict) or not config.get("chat_template"):
        yield "there is no chat template: set CHAT_TEMPLATE to one"


def _safetensors_size(path: Path) -> int | None:
    """Size in bytes that a safetensors file's header demands; None when it cannot be read.

    Source: the format's description, https://github.com/huggingface/safetensors#format
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if length > path.stat().st_size:
            return None
        try:
            header = json.loads(stream.read(length))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
            return None
    return _LENGTH_BYTES + length + max(ends, default=0)


def _is_file(path: Path) -> bool:
    """Return whether the file exists; False for an impossible name, such as one with a NUL or 300 letters."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _json(path: Path) -> Any:
    """A JSON document; None when it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
