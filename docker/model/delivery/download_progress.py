"""Progress as log lines: bytes, percent, rate, time left, files."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from .listing import RemoteFile
from .volume import bytes_in, megabytes

_WINDOW_S = 30.0  # for the rate: steady, yet follows a change
_STEP_BYTES = 1 << 16  # minimum that counts as progress: a server that trickles single bytes has stalled


def bytes_read() -> int:
    """Bytes that this process has read from files, not sockets. Source: proc(5), `rchar`."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])


class DownloadProgress:
    """Progress of a download, measured by the folder's size, so that it works with any client.

    `clock` returns seconds and must be monotonic. `reads` counts the bytes that this process has read from files:
    comparing an earlier run's files adds no bytes, yet is progress.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[RemoteFile],
        clock: Callable[[], float] = time.monotonic,
        reads: Callable[[], int] = bytes_read,
    ) -> None:
        self._folder = folder
        self._files = files
        self._total = sum(file.size for file in files)
        self._clock = clock
        self._reads = reads
        self._start = self._last_step = clock()
        self._first = self._bytes()
        self._mark = self._first + reads()
        self._window = deque([(self._start, self._first)])

    def update(self) -> None:
        """Measure the folder once."""
        now, present = self._clock(), self._bytes()
        work = present + self._reads()
        self._mark = min(self._mark, work)  # a file was restarted
        if work >= self._mark + _STEP_BYTES:
            self._mark, self._last_step = work, now
        self._window.append((now, present))
        while len(self._window) > 2 and now - self._window[0][0] > _WINDOW_S:
            self._window.popleft()

    @property
    def present(self) -> int:
        """Bytes present at the last measurement."""
        return self._window[-1][1]

    @property
    def total(self) -> int:
        """Bytes of the complete model."""
        return self._total

    @property
    def stalled_s(self) -> float:
        """Seconds without progress of at least 64 KiB."""
        return self._clock() - self._last_step

    def line(self) -> str:
        """Progress as one log line."""
        (then, before), (now, present) = self._window[0], self._window[-1]
        rate = max(present - before, 0) / (now - then) if now > then else 0.0
        if rate:
            left = f"{_duration((self._total - present) / rate)} left"
        elif now - self._last_step < _WINDOW_S and self._last_step > self._start:
            left = "comparing what is there"
        else:
            left = f"nothing new for {_duration(self.stalled_s)}"
        share = 100 * present / self._total if self._total else 100.0
        done = sum(_is_whole(self._folder / file.path, file.size) for file in self._files)
        return (
            f"{share:5.1f} %  {megabytes(present)} of {megabytes(self._total)}  {megabytes(int(rate))}/s  {left}  "
            f"{done} of {len(self._files)} files"
        )

    def summary(self) -> str:
        """Bytes, seconds and mean rate of this run."""
        moved, seconds = max(self._bytes() - self._first, 0), self._clock() - self._start
        return f"{megabytes(moved)} in {seconds:.1f} s, {megabytes(int(moved / max(seconds, 1e-9)))}/s"

    def _bytes(self) -> int:
        return min(bytes_in(self._folder), self._total)


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
