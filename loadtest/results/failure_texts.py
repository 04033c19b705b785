"""Texts of failed requests with their counts: mergeable, and in bounded memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Ids and numbers, which differ from request to request; but an HTTP status tells failures apart.
_VARYING = re.compile(
    r"\b(?=[0-9a-f-]*\d)[0-9a-f-]{8,}\b"
    r"|\b(?=[\w-]*\d)[\w-]{16,}\b"
    r"|(?<!HTTP )\b\d+(?:[.,:]\d+)*(?=[a-z]{0,2}\b)"
)
# Distinct texts kept; the rarest above that are counted together.
_MOST = 50
_SHOWN = 3
OTHERS = "(rarer texts)"


def without_varying(text: str) -> str:
    """Return `text` with # in the place of numbers and ids."""
    return _VARYING.sub("#", text)


@dataclass(slots=True)
class FailureText:
    """Failures of one outcome whose texts differ in numbers and ids only; `text` is that of the first one."""

    outcome: str
    text: str
    count: int


class FailureTexts:
    """Counts of failures by outcome and text."""

    def __init__(self) -> None:
        """Start empty."""
        self._kinds: dict[tuple[str, str], FailureText] = {}

    def add(self, outcome: str, text: str, count: int = 1) -> None:
        """Count `count` failures."""
        key = (outcome, without_varying(text))
        kind = self._kinds.get(key)
        if kind is not None:
            kind.count += count
            return
        self._kinds[key] = FailureText(outcome, text, count)
        if len(self._kinds) > 2 * _MOST:
            self._merge_rarest()

    def _merge_rarest(self) -> None:
        ordered = self.most_frequent(len(self._kinds))
        self._kinds = {(kind.outcome, without_varying(kind.text)): kind for kind in ordered[:_MOST]}
        for kind in ordered[_MOST:]:
            self.add(kind.outcome, OTHERS, kind.count)

    def merge(self, other: FailureTexts) -> None:
        """Add the counts of `other`."""
        for kind in other._kinds.values():
            self.add(kind.outcome, kind.text, kind.count)

    def most_frequent(self, number: int = _SHOWN) -> list[FailureText]:
        """Return the most frequent ones, the rarer texts counted together last."""
        return sorted(self._kinds.values(), key=lambda kind: (kind.text == OTHERS, -kind.count))[:number]

    def to_wire(self) -> list[list[Any]]:
        """Return values that msgpack can carry; `from_wire` reads them."""
        return [[kind.outcome, kind.text, kind.count] for kind in self._kinds.values()]

    @classmethod
    def from_wire(cls, wire: Iterable[Sequence[Any]]) -> Self:
        """Read what `to_wire` returned."""
        made = cls()
        for outcome, text, count in wire:
            made.add(outcome, text, count)
        return made
