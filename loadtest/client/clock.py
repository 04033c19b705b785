"""Unix time in nanoseconds: now, and when the kernel received what a TCP socket has. One clock for a whole test."""

from __future__ import annotations

import socket
import struct
import sys
import time

# asm-generic/socket.h, SO_TIMESTAMPNS_OLD: a struct timespec of two native longs; Python has no name for it.
SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
# The test's clock less this host's: not 0 where they differ (loadtest.sending.clock_sync).
_offset_ns = 0
ANCILLARY_SIZE = socket.CMSG_SPACE(_TIMESPEC.size)


def set_offset(seconds: float) -> None:
    """Let all time stamps of this process be the host's clock plus `seconds`."""
    global _offset_ns  # noqa: PLW0603  # a process has one clock
    _offset_ns = round(seconds * 1e9)


def now_ns() -> int:
    """Unix time by the test's clock."""
    return time.time_ns() + _offset_ns


def enable_kernel_stamps(sock: socket.socket) -> bool:
    """Ask the kernel to stamp what `sock` receives. False where the platform has no such stamps."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def kernel_stamp(data: bytes) -> int | None:
    """Read a stamp out of its ancillary data: when the kernel received the last segment of a read, in nanoseconds.

    None where the kernel gave none.
    """
    if len(data) != _TIMESPEC.size:
        return None
    seconds, nanoseconds = _TIMESPEC.unpack(data)
    return int(seconds) * 1_000_000_000 + int(nanoseconds) + _offset_ns
