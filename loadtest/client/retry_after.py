"""Retry-After: the time that a server asks a client to wait before its next request."""

from __future__ import annotations

import math
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a response asks to wait, None if it asks for none; `headers` have names in lower case.

    Retry-After is a number of seconds or a date (RFC 9110, 10.2.3); `retry-after-ms` goes before it, as for the openai
    client. A date is counted from the response's own Date, so that the clocks need not agree, else from `now` (Unix
    time).
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        return seconds if math.isfinite(seconds) and seconds > 0 else None
    date = _unix_time(headers.get("retry-after", ""))
    if date is None:
        return None
    sent = _unix_time(headers.get("date", ""))
    seconds = date - (now if sent is None else sent)
    return seconds if seconds > 0 else None


def _unix_time(text: str) -> float | None:
    parts = parsedate_tz(text)
    if parts is None:
        return None
    try:
        return float(mktime_tz(parts))
    except (ValueError, OverflowError):
        return None
