"""Kernel receive time stamps of a TCP socket, on the wall clock (CLOCK_REALTIME, nanoseconds)."""

from __future__ import annotations

import socket
import struct
import sys

# asm-generic/socket.h, SO_TIMESTAMPNS_OLD: a struct timespec of two native longs; Python has no name for it.
SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
ANCILLARY_SIZE = socket.CMSG_SPACE(_TIMESPEC.size)


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
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
