from __future__ import annotations

import pytest

from loadtest.client import connection, native_receiver, sse


@pytest.fixture(params=["compiled", "python"])
def receive_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the receive loop that the test runs with."""
    if request.param == "python":
        monkeypatch.setattr(connection, "shared_receiver", lambda _: None)
        monkeypatch.setattr(sse, "scan_events", None)
    elif native_receiver.Receiver is None:
        pytest.skip("not built here: scripts/build-native")
    return str(request.param)
