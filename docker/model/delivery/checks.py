"""After the download: whether what lies in the folder is a whole model."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from .listing import RemoteFile


def problems(folder: Path, files: Iterable[RemoteFile]) -> list[str]:
    """Everything that is wrong with a model's folder, one sentence each; empty when it is whole."""
    return [*_unlike_listing(folder, files), *_leftovers(folder), *_missing_shards(folder)]


def _unlike_listing(folder: Path, files: Iterable[RemoteFile]) -> Iterator[str]:
    for file in files:
        path = folder / file.path
        if not path.is_file():
            yield f"{file.path} is missing"
        elif (size := path.stat().st_size) != file.size:
            yield f"{file.path} has {size} bytes, the source lists {file.size}"


def _leftovers(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.incomplete"):
        yield f"{path.relative_to(folder)} is half a download"


def _missing_shards(folder: Path) -> Iterator[str]:
    for index in folder.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            yield f"{index.name} cannot be read ({error!r})"
            continue
        for shard in sorted(shards):
            if not (folder / shard).is_file():
                yield f"{index.name} names {shard}, which is not there"
