"""Compare two results: detect a drop of the capacity, and list the other differences."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtest.input_error import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# Results that differ in one of these are not comparable.
_SAME = ("workload", "slo")
# Names that are never listed as differences.
_NOT_LISTED = {"id", "started", "duration_s", "seed", "target", "notes"}


@dataclass(frozen=True, slots=True)
class Change:
    """The ratio of two capacities, new over old, with its interval; `high` is infinite where the new one is a floor."""

    low: float
    mid: float
    high: float

    def drop_text(self) -> str:
        """Return the change as text."""
        if math.isinf(self.high):
            return f"at least {self.low:.1%} of the baseline"
        return f"{self.mid - 1:+.1%} ({self.low - 1:+.1%} to {self.high - 1:+.1%})"


def read_result(path: Path, option: str) -> dict[str, Any]:
    """Read a `capacity.json`, or the one in a report's folder. Raises InputError."""
    file = path / "capacity.json" if path.is_dir() else path
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        valid = result["verdict"]["valid"]
        _check_shape(result)
    except OSError as error:
        raise InputError(option, f"cannot read {file}: {error.strerror}", "give a capacity.json") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(option, f"{file} is no capacity.json", "give one that a search has written") from None
    if not valid:
        raise InputError(option, f"{file} holds no valid capacity", "search again")
    return result


def _check_shape(result: Mapping[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError unless the result has what the gate reads."""
    rates = [result["capacity"]["requests_per_second"][bound] for bound in ("low", "mid", "high")]
    # Rates that each bound has; they must be positive to have a ratio.
    known = {"edge": 3, "floor": 1, "never_met": 0}[result["capacity"]["bound"]]
    numbers = rates[:known]
    if not all(type(rate) in {int, float} for rate in numbers) or rates[known:] != [None] * (3 - known):
        raise TypeError(f"{rates} are not the rates of this bound")
    if not (numbers == sorted(numbers) and all(0 < number < math.inf for number in numbers)):
        raise ValueError(f"{rates} is no interval of rates")
    if not all(isinstance(result["run"][part], dict) for part in _SAME):
        raise TypeError("the run tells no workload or SLO")


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], option: str) -> None:
    """Raise InputError unless both measured the same workload against the same SLO."""
    for part in _SAME:
        for name, before, after in differences(old["run"][part], new["run"][part]):
            raise InputError(
                option,
                f"was measured with {part} {name} = {before}, this with {after}",
                "compare results of the same workload and SLO",
            )


def change(old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    """Return the change of the capacity. Half widths add up as independent errors of the log rate."""
    before, after = (result["capacity"]["requests_per_second"] for result in (old, new))
    if new["capacity"]["bound"] == "never_met":
        return Change(0.0, 0.0, 0.0)
    if old["capacity"]["bound"] == "never_met":
        return Change(math.inf, math.inf, math.inf)
    first = before["mid"] or before["low"]
    second = after["mid"] or after["low"]
    down = math.hypot(_log(before["high"] or first, first), _log(second, after["low"]))
    up = math.inf if after["high"] is None else math.hypot(_log(first, before["low"]), _log(after["high"], second))
    ratio = second / first
    return Change(ratio * math.exp(-down), ratio, ratio * math.exp(up))


def _log(above: float, below: float) -> float:
    return math.log(above / below)


def is_real_drop(changed: Change, max_drop: float) -> bool:
    """Return whether the whole interval lies below the allowed drop."""
    return changed.high < 1 - max_drop


def differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted name, old, new) of every value that differs between two fingerprints."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new} - _NOT_LISTED):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, old, new


def gate(old: Mapping[str, Any], new: Mapping[str, Any], max_drop: float) -> tuple[bool, list[str]]:
    """Return whether the new result passes, and the lines to print."""
    changed = change(old, new)
    failed = is_real_drop(changed, max_drop)
    verdict = "FAILED" if failed else "passed"
    lines = [f"Gate {verdict}: capacity {changed.drop_text()} against the baseline, up to {max_drop:.0%} may be lost"]
    if not failed and changed.low < 1 - max_drop:
        lines.append("  the intervals are too wide to rule a drop out: a larger --budget makes them narrower")
    lines += [f"  {name}: {before} -> {after}" for name, before, after in differences(old["run"], new["run"])]
    return not failed, lines
