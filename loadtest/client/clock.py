"""Unix time in nanoseconds: now, and the kernel's receive time of a TCP read. One clock for a whole test."""

from __future__ import annotations

import socket
import struct
import sys
import time

# asm-generic/socket.h, SO_TIMESTAMPNS_OLD: a struct timespec of two native longs; Python has no name for it.
SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
# The test's clock minus this host's clock (loadtest.sending.clock_sync).
_offset_ns = 0
ANCILLARY_SIZE = socket.CMSG_SPACE(_TIMESPEC.size)


def set_offset(seconds: float) -> None:
    """Set all time stamps of this process to the host's clock plus `seconds`."""
    global _offset_ns  # noqa: PLW0603  # a process has one clock
    _offset_ns = round(seconds * 1e9)


def offset_ns() -> int:
    """Return the test's clock less this host's, in nanoseconds."""
    return _offset_ns


def now_ns() -> int:
    """Return the Unix time of the test's clock, in nanoseconds."""
    return time.time_ns() + _offset_ns


def enable_kernel_stamps(sock: socket.socket) -> bool:
    """Turn on the kernel's receive time stamps for `sock`. Returns False if the platform has none."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def kernel_stamp(data: bytes) -> int | None:
    """Return the time at which the kernel received the last segment of a read, in Unix nanoseconds.

    `data` is the read's ancillary data; None if the kernel gave no stamp.
    """
    if len(data) != _TIMESPEC.size:
        return None
    seconds, nanoseconds = _TIMESPEC.unpack(data)
    return int(seconds) * 1_000_000_000 + int(nanoseconds) + _offset_ns
