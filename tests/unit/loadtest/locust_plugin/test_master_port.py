from __future__ import annotations

import argparse
import socket
from typing import TYPE_CHECKING

import pytest

from loadtest.input_error import InputError
from loadtest.locust_plugin import master_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def parser(*arguments: str) -> argparse.Namespace:
    made = argparse.ArgumentParser()
    made.add_argument("--master", action="store_true")
    made.add_argument("--worker", action="store_true")
    made.add_argument("--processes", type=int)
    made.add_argument("--master-bind-host", default="*")
    made.add_argument("--master-bind-port", type=int)
    master_port.check_when_parsed(made)
    return made.parse_args(arguments)


@pytest.fixture(autouse=True)
def first_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master_port, "_first", iter((True,)))


@pytest.mark.parametrize("host", ["*", "127.0.0.1"])
def test_busy_port_is_named(busy: int, host: str) -> None:
    with pytest.raises(InputError, match=f"--master-bind-port: port {busy} is in use") as error:
        master_port.check(host, busy)
    assert "--master-port" in str(error.value)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 5557), ("*", 70_000)])
def test_impossible_address_is_named(host: str, port: int) -> None:
    with pytest.raises(InputError, match="--master-bind-port: cannot listen on"):
        master_port.check(host, port)


def test_free_port_passes_and_stays_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(2):
        master_port.check("*", port)


@pytest.mark.parametrize("role", [["--master"], ["--processes", "2"]])
def test_master_on_a_busy_port_ends_with_one_line(
    busy: int, role: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser(*role, "--master-bind-port", str(busy))
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("role", [[], ["--worker"], ["--worker", "--processes", "2"]])
def test_no_master_needs_no_port(busy: int, role: list[str]) -> None:
    assert parser(*role, "--master-bind-port", str(busy)).master_bind_port == busy


def test_only_the_first_parse_checks(busy: int) -> None:
    parser("--worker")
    assert parser("--master", "--master-bind-port", str(busy)).master
