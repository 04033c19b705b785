"""Faults on demand, to test a client's recovery against a real server.

Off unless the server was started with it on. Each fault applies to the next `times` requests whose
"METHOD /path?query" contains a match of the regular expression `match`.
"""

import re
import threading
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any

# A redirected request comes back under this prefix and is answered as if it had none.
REDIRECT_PREFIX = "/redirected"
_ENDING_S = 0.5


@dataclass
class Fault:
    """One fault; several fields may be set together. Offsets and counts are in bytes."""

    match: str
    times: int = 1
    delay_s: float = 0  # silence before anything is sent
    refuse: bool = False  # the connection is closed with no answer
    redirect: bool = False  # 302 to the same thing elsewhere
    status: int = 0  # this status instead of the answer
    headers: dict[str, str] = field(default_factory=dict)  # beside `status`
    cut_after: int | None = None  # the connection is closed after so many bytes of the body
    corrupt_at: int | None = None  # the file's byte at this offset is flipped
    bytes_per_s: int = 0  # the body trickles

    def __post_init__(self) -> None:
        """Raise ValueError for a fault that can never apply."""
        re.compile(self.match)
        if self.status:
            HTTPStatus(self.status)

    @property
    def spoils_body(self) -> bool:
        """Return whether the body must be sent in pieces."""
        return self.cut_after is not None or self.corrupt_at is not None or self.bytes_per_s > 0


class FaultBook:
    """Pending faults and served requests."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._under_way = 0
        self._faults: list[Fault] = []
        self._served: list[dict[str, Any]] = []

    def replace(self, specs: list[dict[str, Any]]) -> None:
        """Set the faults and forget the served requests. Raises TypeError or ValueError for a bad fault."""
        faults = [Fault(**spec) for spec in specs]
        with self._lock:
            self._faults = faults
            self._served = []

    def take(self, request_line: str) -> Fault | None:
        """Take the first fault that matches a request; the request is open until it is recorded."""
        with self._lock:
            self._under_way += 1
            for fault in self._faults:
                if fault.times > 0 and re.search(fault.match, request_line):
                    fault.times -= 1
                    return fault
        return None

    def record(self, request_line: str, *, range_header: str, status: int, sent: int) -> None:
        """Record a served request; `sent` counts body bytes."""
        entry = {"request": request_line, "range": range_header, "status": status, "sent": sent}
        with self._lock:
            self._served.append(entry)
            self._under_way -= 1
            self._lock.notify_all()

    def state(self) -> dict[str, Any]:
        """Faults left and requests served since the last `replace`.

        Waits for open requests: a client has an answer's last byte a moment before it is recorded.
        """
        with self._lock:
            self._lock.wait_for(lambda: self._under_way == 0, timeout=_ENDING_S)
            return {"faults": [asdict(fault) for fault in self._faults], "requests": list(self._served)}
