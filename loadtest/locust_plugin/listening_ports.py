"""Check of the ports of Locust's master and page, while this process is still the only one."""

from __future__ import annotations

import errno
import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

from loadtest.input_error import InputError
from loadtest.results.run_verdict import INVALID

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_first = iter((True,))


def check_when_parsed(parser: argparse.ArgumentParser) -> None:
    """Have `parser` end this process with one line if its options need a port that is not free.

    Locust forks its workers right after parsing, and binds the ports later: the workers would be left behind. Later
    parsers, for Locust's page, check nothing, because the ports are then this process's own.
    """
    parse: Any = parser.parse_args

    def parse_and_check(*given: Any, **named: Any) -> Any:
        options = parse(*given, **named)
        if next(_first, False) and not options.worker:
            try:
                if options.master or options.processes:
                    fix = "--master-bind-port PORT --master-port PORT"
                    check("--master-bind-port", options.master_bind_host, options.master_bind_port, fix)
                if not options.headless:
                    check("--web-port", options.web_host, options.web_port, "--web-port PORT")
            except InputError as error:
                print(error, file=sys.stderr)
                sys.exit(INVALID)
        return options

    named: Any = parser
    named.parse_args = parse_and_check


def check(option: str, host: str, port: int, fix: str) -> None:
    """Make sure that Locust can listen on the port; `host` "" or "*" is all addresses. Raises InputError."""
    try:
        for family, address in _addresses(host, port):
            with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ZeroMQ does
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            problem = f"port {port} is in use, perhaps by another load test"
        else:
            problem = f"cannot listen on {host or '*'}:{port}: {getattr(error, 'strerror', None) or error}"
        raise InputError(option, problem, f"give a free one: {fix}") from None


def _addresses(host: str, port: int) -> Iterator[tuple[int, Any]]:
    if host not in {"", "*"}:
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            yield family, address
        return
    yield socket.AF_INET, ("0.0.0.0", port)  # noqa: S104  # Locust's default
    if socket.has_dualstack_ipv6():
        yield socket.AF_INET6, ("::", port)
