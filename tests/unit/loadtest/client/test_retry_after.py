from __future__ import annotations

import pytest

from loadtest.client.retry_after import read_retry_after

NOON = "Mon, 30 Nov 2026 12:00:00 GMT"
NOW = 1796040000.0  # the same


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "2", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Mon, 30 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Monday, 30-Nov-26 12:00:30 GMT"}, 30.0),
        # The server's clock is an hour slow.
        ({"retry-after": "Mon, 30 Nov 2026 11:00:30 GMT", "date": "Mon, 30 Nov 2026 11:00:00 GMT"}, 30.0),
        ({"retry-after": "Mon, 30 Nov 2026 12:00:30 GMT", "date": "no date"}, 30.0),
    ],
)
def test_wait_is_read_from_each_form(headers: dict[str, str], seconds: float) -> None:
    assert read_retry_after(headers, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "0", "-5", "soon", "nan", "inf", "9" * 500, NOON, "Mon, 30 Nov 999999999999 12:00:00 GMT", "1 2 3 4 5"]
)
def test_useless_wait_is_none(text: str) -> None:
    assert read_retry_after({"retry-after": text}, NOW) is None
