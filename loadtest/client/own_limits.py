"""Limits of this machine that a load can reach before the server does: open files, local ports, memory for sockets."""

from __future__ import annotations

import errno
import os
import resource
import socket
from pathlib import Path

from loadtest.input_error import InputError

_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# For the report, the page, the master and the counters' connections, beside what is open already.
_SPARE_FILES = 30
# More than any load test opens; some systems give no limit at all, and take none.
_MOST_FILES = 1 << 20


def raise_open_files() -> None:
    """Raise this process's limit of open files to the hard one, where that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (ValueError, OSError):
        return


def check_connections(connections: int) -> None:
    """Check that this process can hold so many connections. Raises InputError, which names the limit."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = connections + _open_files() + _SPARE_FILES
    if limit != resource.RLIM_INFINITY and needed > limit:
        raise InputError(
            "-u",
            f"too many open files: {connections} connections of one process need {needed}, and it may open {limit}",
            f"run ulimit -n {needed} first (docker: --ulimit nofile={needed}), or spread the load over more processes",
        )
    ports = _local_ports()
    if ports is not None and connections > ports[1] - ports[0] + 1:
        raise InputError(
            "-u",
            f"too few local ports: {connections} connections, and net.ipv4.ip_local_port_range has {ports[0]} to "
            f"{ports[1]}",
            'run sysctl -w net.ipv4.ip_local_port_range="1024 65535" first, or spread the load over more hosts',
        )


def reached_limit(error: OSError) -> str:
    """Return this machine's limit behind a failed connection and how to raise it; "" if there is none."""
    code = error.errno
    if isinstance(error, socket.gaierror):  # a name cannot be looked up without a file, and says something else
        code = _code_of_a_new_file()
    if code == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"too many open files (a process may open {limit}): raise it with ulimit -n {_twice(limit)}"
    if code == errno.ENFILE:
        return "too many open files on this machine: raise it with sysctl -w fs.file-max"
    if code == errno.EADDRNOTAVAIL:
        ports = _local_ports()
        shown = f" (net.ipv4.ip_local_port_range: {ports[0]} to {ports[1]})" if ports is not None else ""
        return (
            f"no local port was left{shown}: raise it with "
            'sysctl -w net.ipv4.ip_local_port_range="1024 65535", or spread the load over more hosts'
        )
    if code in {errno.ENOMEM, errno.ENOBUFS}:
        return "no memory was left for sockets: free some, or raise it with sysctl -w net.ipv4.tcp_mem"
    return ""


def _twice(limit: int) -> int:
    return max(4096, 2 * limit)


def _code_of_a_new_file() -> int | None:
    try:
        os.close(os.dup(0))
    except OSError as error:
        return error.errno if error.errno in {errno.EMFILE, errno.ENFILE} else None
    return None


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # names only
    except OSError:
        return 0


def _local_ports() -> tuple[int, int] | None:
    """Return the first and last port that connections are given, None where the system does not say."""
    try:
        first, last = map(int, _PORT_RANGE.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return None
    return first, last
