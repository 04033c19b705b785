"""Cores of this host: is the engine on it, and how much of them do others use."""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from loadtest.client.target import Target

# Names of containers on this host, set by compose.yaml: from inside a container their addresses do not show it.
_HERE = "HOSTS_ON_THIS_BOX"
# Docker's own networks on this host.
_BRIDGES = ("docker", "br-")
# Shortest time over which use of the cores is measured: the kernel counts in steps of 10 ms.
_SHORTEST_S = 0.2


def engine_is_here(target: Target) -> bool:
    """Return whether all engines run on this host; False also where that is not known."""
    named = os.environ.get(_HERE, "").split()
    return all(engine.host in named or _is_local(engine.host) for engine in target.engines or (target,))


def _is_local(host: str) -> bool:
    try:
        found = {str(at[0]).partition("%")[0] for *_, at in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    own, networks = _own_networks()
    addresses = [ipaddress.ip_address(each) for each in found]
    return bool(addresses) and all(
        address.is_loopback or str(address) in own or any(address in network for network in networks)
        for address in addresses
    )


def _own_networks() -> tuple[set[str], list[ipaddress.IPv4Network]]:
    """Return this host's addresses, and the networks of its containers."""
    own, networks = set(), []
    for name, interfaces in psutil.net_if_addrs().items():
        for interface in interfaces:
            own.add(interface.address.partition("%")[0])
            if interface.family == socket.AF_INET and interface.netmask and name.startswith(_BRIDGES):
                networks.append(ipaddress.IPv4Network(f"{interface.address}/{interface.netmask}", strict=False))
    return own, networks


class OthersCpu:
    """CPU that this process does not use, from its creation on; of an idle engine's host, that is what others use."""

    def __init__(self) -> None:
        """Start measuring."""
        self._began = time.monotonic()
        self._busy_s, self._own_s = _busy_s(), time.process_time()

    def share(self) -> float | None:
        """Return the share of all cores used since the creation; None if that is too short ago."""
        seconds = time.monotonic() - self._began
        if seconds < _SHORTEST_S:
            return None
        others_s = _busy_s() - self._busy_s - (time.process_time() - self._own_s)
        return min(1.0, max(0.0, others_s / (seconds * (psutil.cpu_count() or 1))))


def _busy_s() -> float:
    """Return the seconds of all cores in which they were in use, also by other virtual machines (steal)."""
    times = psutil.cpu_times()
    guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # contained in user and nice
    return float(sum(times) - guest - times.idle - getattr(times, "iowait", 0.0))
