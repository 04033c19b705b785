"""The files of a model, on the volume, in a folder or archive to copy from, or only listed by a hub."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

from .listing import RemoteFile


@dataclass(frozen=True)
class ModelFiles:
    """Bytes by relative path, with forward slashes; `open` reads a file, and is None where nothing can be read yet."""

    sizes: Mapping[str, int]
    open: Callable[[str], IO[bytes]] | None = None

    @classmethod
    def listed(cls, files: Iterable[RemoteFile]) -> "ModelFiles":
        """The files of a listing."""
        return cls({file.path: file.size for file in files})

    @classmethod
    def in_folder(cls, folder: Path) -> "ModelFiles":
        """The files of a folder."""
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        sizes = {name: path.stat().st_size for name, path in sorted(files.items())}
        return cls(sizes, lambda name: files[name].open("rb"))

    def top(self, *patterns: str) -> list[str]:
        """Files of the top folder whose name fits one of the shell patterns."""
        return [
            path
            for path in sorted(self.sizes)
            if "/" not in path and any(fnmatchcase(path, pattern) for pattern in patterns)
        ]

    def beginning(self, path: str, count: int) -> bytes:
        """At most `count` bytes; none where the file is not there or cannot be read yet."""
        if self.open is None or path not in self.sizes:
            return b""
        with self.open(path) as stream:
            return stream.read(count)

    def json(self, path: str) -> Any:
        """A JSON document; None when it is not there or cannot be read."""
        if self.open is None or path not in self.sizes:
            return None
        try:
            with self.open(path) as stream:
                return json.loads(stream.read())
        except (OSError, ValueError, RecursionError):
            return None

    def config(self) -> dict[str, Any]:
        """config.json; empty where there is none, or none that can be read yet."""
        config = self.json("config.json")
        return config if isinstance(config, dict) else {}
