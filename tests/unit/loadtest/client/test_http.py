from __future__ import annotations

import pytest

from loadtest.client import clock
from loadtest.client.connection import Capture
from loadtest.client.http import read_response


@pytest.mark.parametrize("every", [True, False])
def test_every_read_needs_a_kernel_stamp(*, every: bool) -> None:
    stamp = clock._TIMESPEC.pack(1000, 0)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    capture = Capture(reads=[(head, stamp, 1), (b"ok", stamp if every else b"", 2)])
    response = read_response(capture, lambda: None)
    assert (response.body, response.kernel_stamped) == (b"ok", every)
