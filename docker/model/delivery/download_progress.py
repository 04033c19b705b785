"""Progress in lines, for a log that shows no bars: bytes, percent, rate, time left, files."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from .listing import RemoteFile
from .volume import bytes_in, megabytes

_WINDOW_S = 30.0  # the rate is that of the last half minute: steady, yet it follows a change
_STEP_BYTES = 1 << 16  # less than this is no progress: a server that trickles single bytes has stalled


def bytes_read() -> int:
    """Bytes that this process has read from files (not from sockets), by the kernel's count (proc(5), `rchar`)."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])


class DownloadProgress:
    """Watches a folder fill up; which client fills it, and how, makes no difference.

    `clock` returns seconds and must be monotonic. `reads` counts the bytes that this process has read from files:
    comparing what an earlier run left brings no new bytes, yet it is no standstill.
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
        """Look at the folder once."""
        now, present = self._clock(), self._bytes()
        work = present + self._reads()
        self._mark = min(self._mark, work)  # a file that was started anew
        if work >= self._mark + _STEP_BYTES:
            self._mark, self._last_step = work, now
        self._window.append((now, present))
        while len(self._window) > 2 and now - self._window[0][0] > _WINDOW_S:
            self._window.popleft()

    @property
    def present(self) -> int:
        """Bytes that were there at the last look."""
        return self._window[-1][1]

    @property
    def total(self) -> int:
        """Bytes that there will be."""
        return self._total

    @property
    def stalled_s(self) -> float:
        """Seconds without progress worth the name: 64 KiB."""
        return self._clock() - self._last_step

    def line(self) -> str:
        """Where the download stands now."""
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
        """What this run moved, and how fast on average."""
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
