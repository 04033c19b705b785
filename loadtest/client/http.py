"""HTTP parser of a captured response: status, headers, and the body with the arrival time of each part."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import httptools
import numpy as np

from loadtest.client.clock import kernel_stamp
from loadtest.client.connection import is_interim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from loadtest.client.connection import Capture
    from loadtest.client.native_receiver import Received


# Reads parsed in one go: some hundred microseconds.
SLICE = 256


# Consecutive bytes of a body that arrived in one read, and their arrival in Unix nanoseconds.
Fragment = tuple[bytes, int]


def _none() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


@dataclass(slots=True)
class Response:
    """A parsed response; `status` is 0 if no whole head arrived.

    `ends` and `times`: per read with a part of the body, the part's end in it and its arrival in Unix nanoseconds.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""
    ends: NDArray[np.int64] = field(default_factory=_none)
    times: NDArray[np.int64] = field(default_factory=_none)
    kernel_stamped: bool = False  # every read had the kernel's stamp
    lags_ns: NDArray[np.int64] = field(default_factory=_none)  # per read: from the kernel's stamp to the read

    @property
    def content_type(self) -> str:
        """Content-Type in lower case, empty if there is none."""
        return self.headers.get("content-type", "").lower()

    def fragments(self) -> Iterator[Fragment]:
        """Yield the parts of the body as they arrived."""
        for (start, end), at_ns in zip(pairwise((0, *self.ends.tolist())), self.times.tolist(), strict=True):
            yield self.body[start:end], at_ns


class _Reader:
    def __init__(self) -> None:
        self.status = 0
        self.complete = False
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.size = 0
        self.parser: httptools.HttpResponseParser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        if not self.complete:
            self.headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete and not self.status:  # neither of a next response nor of the trailer
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip(" \t")

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if not self.complete and not is_interim(status):
            self.status = status

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self.parts.append(data)
            self.size += len(data)

    def on_message_complete(self) -> None:
        self.complete = self.status > 0


def read_response(capture: Capture, yield_to_loop: Callable[[], None]) -> Response:
    """Parse a capture. Bytes that are not HTTP end the parsing without an error: `capture.end` reports them.

    `yield_to_loop` is called every SLICE reads, so that a long response does not block the event loop.
    """
    if capture.received is not None:
        return _from_received(capture.received)
    reader = _Reader()
    ends: list[int] = []
    times: list[int] = []
    lags: list[int] = []
    for number, (data, stamp_data, user_ns) in enumerate(capture.reads, 1):
        if not number % SLICE:
            yield_to_loop()
        if not data:
            continue
        at_ns = kernel_stamp(stamp_data)
        if at_ns is None:
            at_ns = user_ns
        else:
            lags.append(max(0, user_ns - at_ns))
        before = reader.size
        try:
            reader.parser.feed_data(data)
        except httptools.HttpParserError:
            break
        finally:
            if reader.size > before:
                ends.append(reader.size)
                times.append(at_ns)
    return Response(
        reader.status,
        reader.headers,
        b"".join(reader.parts),
        np.array(ends, np.int64),
        np.array(times, np.int64),
        bool(lags) and len(lags) == sum(1 for read in capture.reads if read[0]),
        np.array(lags, np.int64),
    )


def _from_received(received: Received) -> Response:
    headers = {}
    for line in received.head.decode("latin-1").split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.lower()] = value.strip(" \t\r")
    return Response(
        received.status,
        headers,
        received.body,
        np.frombuffer(received.ends, np.int64),
        np.frombuffer(received.times, np.int64),
        received.stamped,
        np.frombuffer(received.lags, np.int64),
    )
