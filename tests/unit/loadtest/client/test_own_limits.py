from __future__ import annotations

import errno
import resource
import socket
from typing import TYPE_CHECKING

import pytest

from loadtest.client import own_limits
from loadtest.client.connection import Capture, Connection, End
from loadtest.client.own_limits import check_connections, raise_open_files, reached_limit
from loadtest.client.target import Target
from loadtest.input_error import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def files() -> Iterator[int]:
    """The limit of open files, as low as what is open now and 60 more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = own_limits._open_files() + 60
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, before[1]))
    yield low
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_limit_of_files_is_raised_to_the_hard_one(files: int) -> None:
    raise_open_files()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert files < soft == min(hard, 1 << 20) or hard == resource.RLIM_INFINITY


def test_too_few_files_are_refused_before_the_run(files: int) -> None:
    check_connections(10)
    with pytest.raises(InputError, match=rf"^-u: too many open files: 100 conn.* it may open {files}; run ulimit -n "):
        check_connections(100)


def test_too_few_ports_are_refused_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = tmp_path / "ports"
    ports.write_text("50000\t50009\n")
    monkeypatch.setattr(own_limits, "_PORT_RANGE", ports)
    check_connections(10)
    with pytest.raises(InputError, match=r"^-u: too few local ports: 11 .* has 50000 to 50009; run sysctl -w net"):
        check_connections(11)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EMFILE, "x"), "too many open files (a process may open "),
        (OSError(errno.ENFILE, "x"), "fs.file-max"),
        (OSError(errno.EADDRNOTAVAIL, "x"), "net.ipv4.ip_local_port_range"),
        (OSError(errno.ENOBUFS, "x"), "no memory was left"),
        (OSError(errno.ENOMEM, "x"), "no memory was left"),
    ],
)
def test_own_limit_is_named_with_its_command(error: OSError, text: str) -> None:
    assert text in reached_limit(error)


def test_server_and_names_are_no_limit_of_ours() -> None:
    assert reached_limit(ConnectionRefusedError(errno.ECONNREFUSED, "x")) == ""
    assert reached_limit(socket.gaierror(socket.EAI_AGAIN, "x")) == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_file_left_is_not_the_servers_fault(host: str) -> None:
    connection = Connection(Target.parse(f"http://{host}:1"))
    connection.exchange(b"", 5, Capture())  # imports what a name's look-up needs
    before, capture = resource.getrlimit(resource.RLIMIT_NOFILE), Capture()
    # Less than what is open: not one more can be opened, whatever is closed meanwhile.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))
    connection.exchange(b"", 5, capture)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert capture.end is End.CONNECT
    assert capture.own_limit.startswith("too many open files")
