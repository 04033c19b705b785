"""Server-sent events from body fragments: the data of each event, and the arrival of its last byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from loadtest.client.http import Fragment


def read_events(fragments: Iterable[Fragment]) -> Iterator[tuple[bytes, int]]:
    """Yield (data, Unix nanoseconds) per event, parsed as the HTML standard's event stream format.

    Comments and fields other than `data` are skipped. An event is complete at its blank line: an event cut off by the
    end of the stream is not yielded.
    """
    tail = b""
    lines: list[bytes] = []
    for received, at_ns in fragments:
        # The common case: a fragment is one event of one line.
        if received.startswith(b"data: ") and received.endswith(b"\n\n") and not (tail or lines):
            event = received[6:-2]
            if b"\n" not in event and b"\r" not in event:
                yield event, at_ns
                continue
        data = tail + received
        # A final CR may be the first half of a CRLF that the next fragment completes.
        if b"\r" in data:
            held = data.endswith(b"\r")
            if held:
                data = data[:-1]
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            tail_mark = b"\r" if held else b""
        else:
            tail_mark = b""
        *complete, rest = data.split(b"\n")
        tail = rest + tail_mark
        for line in complete:
            if not line:
                if lines:
                    yield b"\n".join(lines), at_ns
                    lines = []
            elif line.startswith(b"data:"):
                lines.append(line[6:] if line.startswith(b"data: ") else line[5:])
