"""Listeners that connect the load test to Locust's events; the locustfile calls `install`."""

from __future__ import annotations

from locust import argument_parser, events, runners

import functools
import logging
import sys
from typing import TYPE_CHECKING, Any, cast

import zmq.green

from loadtest.client.own_limits import raise_open_files
from loadtest.input_error import InputError
from loadtest.locust_plugin import listening_ports
from loadtest.locust_plugin.coordinator import REPORT_INTERVAL_S, Coordinator
from loadtest.results.run_verdict import INVALID
from loadtest.sending.worker import LoadWorker
from loadtest.settings.run_options import add_options

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.web import WebUI


# A message whose arrival gevent missed, as happens on a busy box, is read after this time. pyzmq's own 11.6 s are
# longer than Locust waits for a heartbeat: all workers then counted as lost.
_MISSED_MESSAGE_S = 0.5


def install() -> None:
    """Register the load test with the Locust that loads the locustfile."""
    runners.WORKER_REPORT_INTERVAL = REPORT_INTERVAL_S
    green: Any = zmq.green.Socket  # pyzmq declares no such field
    green._gevent_bug_timeout = _MISSED_MESSAGE_S  # noqa: SLF001  # there is no other way
    # A worker asks for it once for each option in each message that gives it users, and Locust then builds its whole
    # command line anew: a second of CPU a message, in which a busy box misses heartbeats.
    argument_parser.default_args_dict = functools.cache(argument_parser.default_args_dict)
    hook: Any = events  # untyped in Locust
    hook.init_command_line_parser.add_listener(add_options)
    hook.init_command_line_parser.add_listener(listening_ports.check_when_parsed)
    hook.init.add_listener(_on_init)


def _on_init(environment: Environment, web_ui: WebUI | None, **_: Any) -> None:
    raise_open_files()
    if isinstance(environment.runner, runners.WorkerRunner):
        runner = cast("Any", environment.runner)
        LoadWorker(environment, alone=False, refuse=lambda problem: runner.send_message("loadtest_problem", problem))
        return
    if vars(environment.parsed_options)["find_capacity"]:
        _log_search_only(environment)
    coordinator = Coordinator(environment)
    alone = not isinstance(environment.runner, runners.MasterRunner)
    coordinator.listen_for_stop(LoadWorker(environment, alone=True, refuse=coordinator.refuse) if alone else None)
    try:
        if web_ui is not None:
            coordinator.install_web(web_ui)
        else:
            _prepare_headless(environment, coordinator)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(INVALID)


def _log_search_only(environment: Environment) -> None:
    """Print only the search's own lines on a terminal: Locust's tables mix all stages up."""
    if environment.web_ui is not None or not vars(environment.parsed_options)["headless"]:
        return
    logging.getLogger("locust.stats_logger").disabled = True
    if vars(environment.parsed_options)["skip_log_setup"]:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
        logging.getLogger("loadtest").setLevel(logging.INFO)


def _prepare_headless(environment: Environment, coordinator: Coordinator) -> None:
    options = environment.parsed_options
    assert options is not None  # noqa: S101  # for the type checker: Locust's main has parsed them
    coordinator.check()
    if options.metrics_port:
        coordinator.serve_metrics(options.metrics_port)
