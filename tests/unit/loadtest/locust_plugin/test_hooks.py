"""The plugin's changes to Locust itself."""

from __future__ import annotations

from locust import argument_parser, runners
from locust.event import Events

from typing import TYPE_CHECKING

import zmq.green

from loadtest.locust_plugin import hooks

if TYPE_CHECKING:
    import pytest


def test_busy_box_keeps_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "events", Events())
    monkeypatch.setattr(argument_parser, "default_args_dict", argument_parser.default_args_dict)
    hooks.install()
    # Not built anew for each option of each message.
    assert argument_parser.default_args_dict() is argument_parser.default_args_dict()
    missed_s: float = vars(zmq.green.Socket)["_gevent_bug_timeout"]
    assert missed_s < runners.HEARTBEAT_INTERVAL * runners.HEARTBEAT_LIVENESS
