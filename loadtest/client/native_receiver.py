"""The compiled receiver inside gevent: a greenlet waits for one whole response, not for each of its chunks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import gevent
from gevent.hub import Waiter

__all__ = ["AFTER_DONE_MS", "NativeReceiver", "Received", "Receiver", "describe", "scan_events", "shared_receiver"]

try:
    from headroom_receiver import Receiver, scan_events
except ImportError:  # loadtest/client/native is not built: connection.py and sse.py do the same in Python
    Receiver = scan_events = None

_READABLE = 1  # libev's EV_READ
# How long the end of a body is waited for after [DONE], as OpenAI's client does (openai/_streaming_cleanup.py).
AFTER_DONE_MS = 100
# With this many streams and up, the thread rests between two polls: fewer wake-ups, each for more chunks. Arrival times
# are the kernel's, so only deltas less than this apart are affected: they count as merged.
_NAP_FROM, _NAP_US = 16, 500

# headroom_receiver.c: how an exchange ended.
RUNNING, COMPLETE, CLOSED, GARBLED, _NO_MEMORY = range(5)


@dataclass(frozen=True, slots=True)
class Received:
    """One response without its framing, whole or not.

    The last three are int64 in native order: per read with a part of the body, where that part ends and when it arrived
    (CLOCK_REALTIME ns); per read with the kernel's stamp, from the stamp to our reading it.
    """

    end: int
    error: int  # errno
    problem: str | None
    status: int
    keep_alive: bool
    stamped: bool  # every read had the kernel's stamp
    size: int  # bytes, with head and framing
    head: bytes
    body: bytes
    ends: bytes
    times: bytes
    lags: bytes


class NativeReceiver:
    """The receiver of one process and its event loop."""

    def __init__(self, read_bytes: int, nap_us: int = _NAP_US, nap_from: int = _NAP_FROM) -> None:
        """Start its thread, which rests `nap_us` microseconds between two polls with `nap_from` streams and up."""
        self.process = os.getpid()
        self._native = Receiver(read_bytes, nap_us, nap_from, AFTER_DONE_MS)
        self._waiting: dict[int, Waiter[None]] = {}
        # Whoever waits has a timer in the loop, so that this watcher need not keep the loop going.
        self._watcher: Any = gevent.get_hub().loop.io(self._native.fileno(), _READABLE, ref=False)
        self._watcher.start(self._wake)

    def start(self, descriptor: int) -> int:
        """Begin to receive on a socket; returns the exchange's number. Raises OSError."""
        number: int = self._native.start(descriptor)
        self._waiting[number] = Waiter()
        return number

    def wait(self, number: int) -> None:
        """Wait until the response has ended."""
        self._waiting[number].get()

    def take(self, number: int, offset_ns: int) -> Received:
        """End the exchange, whether its response has ended or not. Raises MemoryError."""
        del self._waiting[number]
        received = Received(*self._native.take(number, offset_ns))
        if received.end == _NO_MEMORY:
            raise MemoryError
        return received

    def _wake(self) -> None:
        """Run in the event loop: resume whoever waits for what has ended."""
        if os.getpid() != self.process:  # what it says is for the parent
            self._watcher.stop()
            return
        # All are looked up first: the first one that runs may end others, and their numbers may be given again.
        for waiter in [self._waiting.get(number) for number in self._native.finished()]:
            if waiter is not None:
                waiter.switch(None)

    def close(self) -> None:
        """Stop the thread."""
        self._watcher.stop()
        self._watcher.close()
        self._native.close()


_receivers: WeakKeyDictionary[Any, NativeReceiver] = WeakKeyDictionary()


def shared_receiver(read_bytes: int) -> NativeReceiver | None:
    """Return the receiver of this thread's event loop, started at the first call; None where it is not built."""
    if Receiver is None:
        return None
    hub = gevent.get_hub()
    receiver = _receivers.get(hub)
    # A forked process has its parent's receiver, but not the thread.
    if receiver is None or receiver.process != os.getpid():
        receiver = _receivers[hub] = NativeReceiver(read_bytes)
    return receiver


def describe() -> str:
    """Name the receive loop in use."""
    return "Python (scripts/build-native makes a cheaper one)" if Receiver is None else "compiled"
