"""Server-sent events from body fragments: the data of each event, and the arrival of its last byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadtest.client.native_receiver import scan_events

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from loadtest.client.http import Fragment, Response

_LINE_END = ord("\n")


@dataclass(frozen=True, slots=True)
class Events:
    """The events of a response.

    `arrivals`: of each event, Unix nanoseconds. `plain`: for each event that is one delta of text and nothing else, the
    text's bytes in UTF-8, else 0; all are 0 without the compiled receiver, which tells them apart. `others`: number and
    data of each event that is not plain.
    """

    arrivals: NDArray[np.int64]
    plain: NDArray[np.int32]
    others: list[tuple[int, bytes]]


def split_events(response: Response) -> Events:
    """Return the events of a response, parsed as `read_events` does."""
    body = response.body
    if scan_events is not None:
        found = scan_events(body, response.ends, response.times)
        if found is not None:
            arrivals, plain, others = found
            return Events(np.frombuffer(arrivals, np.int64), np.frombuffer(plain, np.int32), others)
    # The common case: all events have one line. Then each second line end ends an event.
    count = body.count(b"\n\ndata: ") + 1
    if body.startswith(b"data: ") and body.endswith(b"\n\n") and body.count(b"\n") == 2 * count and b"\r" not in body:
        last_bytes = np.flatnonzero(np.frombuffer(body, np.uint8) == _LINE_END)[1::2]
        times = response.times[np.searchsorted(response.ends, last_bytes, side="right")]
        return Events(times, np.zeros(count, np.int32), list(enumerate(body[6:-2].split(b"\n\ndata: "))))
    events = list(read_events(response.fragments()))
    times = np.array([at_ns for _, at_ns in events], np.int64)
    return Events(times, np.zeros(len(events), np.int32), [(number, data) for number, (data, _) in enumerate(events)])


_BOM = b"\xef\xbb\xbf"


def read_events(fragments: Iterable[Fragment]) -> Iterator[tuple[bytes, int]]:
    """Yield (data, Unix nanoseconds) per event, parsed as the HTML standard's event stream format.

    Comments and fields other than `data` are skipped. An event is complete at its blank line: an event cut off by the
    end of the stream is not yielded, except a final `[DONE]`, after which servers leave out line ends.
    """
    tail = b""
    lines: list[bytes] = []
    after_cr = False  # the LF that may follow belongs to the same line end
    at_start = True
    at_ns = 0
    for received, at_ns in fragments:
        # The common case: a fragment is one event of one line.
        if received.startswith(b"data: ") and received.endswith(b"\n\n") and not (tail or lines):
            event = received[6:-2]
            if b"\n" not in event and b"\r" not in event:
                after_cr = at_start = False
                yield event, at_ns
                continue
        data = received[1:] if after_cr and received.startswith(b"\n") else received
        after_cr = received.endswith(b"\r") or (after_cr and not received)
        *complete, tail = (tail + _with_lf(data)).split(b"\n")
        if complete and at_start:
            complete[0] = complete[0].removeprefix(_BOM)
            at_start = False
        for line in complete:
            if line.startswith(b"data:"):
                lines.append(_value(line))
            elif lines and not line:
                yield b"\n".join(lines), at_ns
                lines = []
    lines += [_value(tail)] if tail.startswith(b"data:") else []
    if lines and lines[0].startswith(b"[DONE]"):
        yield b"\n".join(lines), at_ns


def _value(line: bytes) -> bytes:
    return line[6:] if line.startswith(b"data: ") else line[5:]


def _with_lf(data: bytes) -> bytes:
    """Return `data` with LF in the place of CRLF and CR."""
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data
