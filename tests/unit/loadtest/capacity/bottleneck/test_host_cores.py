from __future__ import annotations

import socket
from types import SimpleNamespace

import psutil
import pytest

from loadtest.capacity.bottleneck import host_cores
from loadtest.capacity.bottleneck.host_cores import OthersCpu, engine_is_here
from loadtest.client.target import Target

INTERFACES = {
    "lo": [SimpleNamespace(family=socket.AF_INET, address="127.0.0.1", netmask="255.0.0.0")],
    "eth0": [SimpleNamespace(family=socket.AF_INET, address="10.1.2.3", netmask="255.255.255.0")],
    "br-1a2b": [SimpleNamespace(family=socket.AF_INET, address="172.18.0.1", netmask="255.255.0.0")],
    "tap0": [SimpleNamespace(family=socket.AF_PACKET, address="00:00", netmask=None)],
}


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("[::1]", True),
        ("10.1.2.3", True),
        ("10.1.2.4", False),
        ("172.18.0.5", True),  # a container here
        ("vllm", True),  # by name
        ("no-such-name.invalid", False),
    ],
)
def test_engine_on_this_host_is_recognised(host: str, here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: INTERFACES)
    monkeypatch.setenv("HOSTS_ON_THIS_BOX", "vllm router")
    monkeypatch.setattr(host_cores.socket, "getaddrinfo", _addresses)
    assert engine_is_here(Target.parse(f"http://{host}:8000")) == here
    assert engine_is_here(Target.parse("http://10.9.9.9:8000", engines=f"http://{host}:1 http://127.0.0.1:2")) == here


def _addresses(host: str, _port: None) -> list[tuple[object, ...]]:
    if host.endswith(".invalid"):
        raise socket.gaierror
    return [(0, 0, 0, "", (host, 0))]


def test_others_are_all_but_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of 4 cores for 10 s: 18 s in use, 2 s of these stolen by another machine, 3 s of these ours.
    clock, own = iter([0.0, 10.0]), iter([1.0, 4.0])
    times = iter([_times(), _times(user=12.0, system=4.0, steal=2.0, guest=5.0, idle=21.0, iowait=1.0)])
    monkeypatch.setattr(host_cores.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(host_cores.time, "process_time", lambda: next(own))
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(times))
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    assert OthersCpu().share() == pytest.approx(15 / 40)


class _Times(tuple[float, ...]):
    __slots__ = ()
    user, system, idle, iowait, steal, guest = (property(lambda self, place=place: self[place]) for place in range(6))


def _times(**seconds: float) -> _Times:
    return _Times(seconds.get(name, 0.0) for name in ("user", "system", "idle", "iowait", "steal", "guest"))


def test_too_short_a_time_tells_nothing() -> None:
    assert OthersCpu().share() is None
