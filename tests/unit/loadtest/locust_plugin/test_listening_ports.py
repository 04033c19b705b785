from __future__ import annotations

import argparse
import socket
from typing import TYPE_CHECKING

import pytest

from loadtest.input_error import InputError
from loadtest.locust_plugin import listening_ports

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
    made.add_argument("--headless", action="store_true")
    made.add_argument("--web-host", default="")
    made.add_argument("--web-port", type=int)
    listening_ports.check_when_parsed(made)
    return made.parse_args(arguments)


@pytest.fixture(autouse=True)
def first_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening_ports, "_first", iter((True,)))


@pytest.mark.parametrize("host", ["*", "127.0.0.1"])
def test_busy_port_is_named(busy: int, host: str) -> None:
    with pytest.raises(InputError, match=f"--master-bind-port: port {busy} is in use") as error:
        listening_ports.check("--master-bind-port", host, busy, "--master-port PORT")
    assert "--master-port" in str(error.value)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 5557), ("*", 70_000)])
def test_impossible_address_is_named(host: str, port: int) -> None:
    with pytest.raises(InputError, match="--master-bind-port: cannot listen on"):
        listening_ports.check("--master-bind-port", host, port, "")


def test_free_port_passes_and_stays_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(2):
        listening_ports.check("--web-port", "", port, "")


@pytest.mark.parametrize(
    ("role", "option"),
    [
        (["--headless", "--master"], "--master-bind-port"),
        (["--headless", "--processes", "2"], "--master-bind-port"),
        ([], "--web-port"),
    ],
)
def test_a_busy_port_ends_with_one_line(
    busy: int, role: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser(*role, option, str(busy))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{option}: port {busy} is in use")


@pytest.mark.parametrize("role", [["--headless"], ["--worker"], ["--worker", "--processes", "2"]])
def test_a_port_that_is_not_needed_may_be_busy(busy: int, role: list[str]) -> None:
    parser(*role, "--master-bind-port", str(busy), "--web-port", str(busy))


def test_only_the_first_parse_checks(busy: int) -> None:
    parser("--worker")
    assert parser("--master", "--headless", "--master-bind-port", str(busy)).master
