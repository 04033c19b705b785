"""HTTP parser of a captured response: status, and body fragments with their arrival times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httptools

from loadtest.client.clock import kernel_stamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtest.client.connection import Capture


# Reads parsed without a pause: some hundred microseconds.
SLICE = 128


# Consecutive bytes of a body that arrived in one read, and their arrival in Unix nanoseconds.
Fragment = tuple[bytes, int]


@dataclass(slots=True)
class Response:
    """A parsed response; `status` is 0 if not even a status line arrived."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    fragments: list[Fragment] = field(default_factory=list)
    kernel_stamped: bool = False  # every read had the kernel's stamp
    lags_ns: list[int] = field(default_factory=list)  # per read: from the kernel's stamp to the read

    @property
    def content_type(self) -> str:
        """Content-Type in lower case, empty if there is none."""
        return self.headers.get("content-type", "").lower()

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join([data for data, _ in self.fragments])


class _Reader:
    def __init__(self) -> None:
        self.response = Response()
        self.at_ns = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self.response.fragments.append((data, self.at_ns))


def read_response(capture: Capture, yield_to_loop: Callable[[], None]) -> Response:
    """Parse a capture. Bytes that are not HTTP end the parsing without an error: `capture.end` reports them.

    `yield_to_loop` is called every SLICE reads, so that a long response does not block the event loop.
    """
    reader = _Reader()
    response = reader.response
    parser = httptools.HttpResponseParser(reader)
    stamped = 0
    for number, (data, stamp_data, user_ns) in enumerate(capture.reads, 1):
        if not number % SLICE:
            yield_to_loop()
        if not data:
            continue
        stamp = kernel_stamp(stamp_data)
        if stamp is None:
            reader.at_ns = user_ns
        else:
            stamped += 1
            reader.at_ns = stamp
            response.lags_ns.append(max(0, user_ns - stamp))
        try:
            parser.feed_data(data)
        except httptools.HttpParserError:
            break
    response.kernel_stamped = bool(stamped) and stamped == sum(1 for read in capture.reads if read[0])
    if capture.reads:
        response.status = parser.get_status_code()
    return response
