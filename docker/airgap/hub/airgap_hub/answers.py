"""Requests and answers as data; the server turns them into bytes."""

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
    """A file's bytes; the server handles ranges."""

    file: StoredFile
    headers: dict[str, str] = field(default_factory=dict)


Answer = Json | FileBody
