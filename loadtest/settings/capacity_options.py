"""Options of a capacity search: on the command line, in the environment, and in Locust's web form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtest.input_error import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_BUDGET = "15m"


@dataclass(frozen=True, slots=True)
class CapacityOptions:
    """Options of a search; None for the search's default."""

    budget_s: float
    relative_interval: float
    start_rate: float | None
    max_rate: float | None


def add_capacity_options(add: Callable[..., Any]) -> None:
    """Add the search's options by `add`, which is Locust's `parser.add_argument`."""
    add(
        "--find-capacity",
        default=False,
        action="store_true",
        help="search for the highest rate that meets the SLO, with Poisson arrivals; users play no part",
    )
    add("--capacity-budget", default=DEFAULT_BUDGET, help="search: time for all of it, such as 90s, 15m or 1h")
    add("--capacity-interval", default="5", help="search: ends when the result is known to so many percent")
    add("--capacity-start-rate", default="", help="search: requests/s to begin with; empty: a careful guess")
    add("--capacity-max-rate", default="", help="search: never send more requests/s; empty: no limit")


def read_capacity_options(values: Mapping[str, Any], *, slo_asked: bool) -> CapacityOptions | None:
    """Parse the options; None without --find-capacity. Raises InputError."""
    if not values["find_capacity"]:
        return None
    if not slo_asked:
        raise InputError("--find-capacity", "there is no SLO to keep", "give --slo-ttft-ms, --slo-tpot-ms or both")
    percentile = _number(values, "slo_percentile")
    if percentile is not None and percentile >= 100:
        # With enough requests, one of them misses at any rate.
        raise InputError("--slo-percentile", f"a search needs one below 100, not {percentile:g}", "give for example 99")
    for key in ("rate", "max_requests", "trace", "warmup_requests"):
        if str(values[key]).strip() not in {"", "0"}:
            option = "--" + key.replace("_", "-")
            raise InputError(option, "has no meaning with --find-capacity", "leave it out")
    if str(values["arrival"]) not in {"auto", "poisson"}:
        raise InputError("--arrival", f"a search sends with poisson, not {values['arrival']}", "leave it out")
    if not values["stream"]:
        raise InputError("--no-stream", "a search needs the time to the first token", "leave it out")
    interval = _number(values, "capacity_interval")
    if interval is None or not 1 <= interval <= 50:
        raise InputError("--capacity-interval", "is not from 1 to 50 percent", "the default is 5")
    start, max_rate = _number(values, "capacity_start_rate"), _number(values, "capacity_max_rate")
    if start is not None and max_rate is not None and start > max_rate:
        raise InputError("--capacity-start-rate", f"{start:g} is above --capacity-max-rate {max_rate:g}", "give less")
    return CapacityOptions(_seconds(values, "capacity_budget"), interval / 100, start, max_rate)


def _seconds(values: Mapping[str, Any], key: str) -> float:
    # Not above: importing Locust patches the standard library.
    from locust.util.timespan import parse_timespan  # noqa: PLC0415

    text = str(values[key]).strip()
    try:
        seconds = float(parse_timespan(text))
    except ValueError:
        seconds = 0.0
    if seconds < 10:
        raise InputError(_option(key), f"{text!r} is not a time of 10 s or more", "write it like 90s, 15m or 1h30m")
    return seconds


def _number(values: Mapping[str, Any], key: str) -> float | None:
    text = str(values[key]).strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise InputError(_option(key), f"{text!r} is not a number above 0", "give a number above 0")
    return number


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")
