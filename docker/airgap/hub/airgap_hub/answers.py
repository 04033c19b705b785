"""What a route answers, before anything is sent: data that the server turns into bytes."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from .library import StoredFile


@dataclass(frozen=True)
class Request:
    """One request as the routes see it: decoded path, first value of each query key."""

    method: str
    path: str
    query: dict[str, str]


@dataclass(frozen=True)
class Json:
    """A JSON document with a status."""

    body: Any
    status: HTTPStatus = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FileBody:
    """A file's bytes; ranges are the server's affair."""

    file: StoredFile
    headers: dict[str, str] = field(default_factory=dict)


Answer = Json | FileBody
