"""Prompts whose beginnings repeat as those of a trace did: blocks of text, the same for the same hash id."""

import math
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from loadtest.workload.draws import DrawSource
from loadtest.workload.words import PromptTexts

# Tokens a block, as published: Mooncake (FAST '25) and tools that follow it, and the traces of Qwen's service.
BLOCK_SIZES = (512, 16)
# Numbers of texts that are a request's own, above those of blocks.
_OWN = 1 << 32
_KEPT_BLOCKS = 4096


class Blocks:
    """Block ids of each request of a trace, 4 bytes each. An id stands for its block and all before it."""

    def __init__(self) -> None:
        """Start empty."""
        self._ids = array("I")
        self._ends = array("Q")
        self._numbers: dict[Any, int] = {}
        self._fits = dict.fromkeys(BLOCK_SIZES, 0)
        self._shared = array("I")  # leading blocks of each request that an earlier one had

    def add(self, hash_ids: Sequence[Any], prompt_tokens: int) -> None:
        """Add the next request."""
        known = len(self._numbers)
        numbers = [self._numbers.setdefault(each, len(self._numbers)) for each in hash_ids]
        self._ids.extend(numbers)
        self._ends.append(len(self._ids))
        self._shared.append(next((place for place, number in enumerate(numbers) if number >= known), len(numbers)))
        for size in BLOCK_SIZES:
            self._fits[size] += bool(hash_ids) and math.ceil(prompt_tokens / size) == len(hash_ids)

    def __bool__(self) -> bool:
        """Return whether any request has blocks."""
        return bool(self._ids)

    @property
    def size(self) -> int:
        """Tokens a block, by the number of blocks and tokens of most requests."""
        return max(self._fits, key=self._fits.__getitem__)

    def of(self, index: int) -> Sequence[int]:
        """Return the block numbers of request `index`; requests repeat after the last."""
        row = index % len(self._ends)
        return self._ids[self._ends[row - 1] if row else 0 : self._ends[row]]

    def shared_tokens(self, prompts: Iterable[int]) -> int:
        """Return the most tokens a request, on average over any first part of the trace, that earlier ones had."""
        most = total = 0.0
        for count, (shared, prompt) in enumerate(zip(self._shared, prompts, strict=True), 1):
            total += min(shared * self.size, prompt)
            most = max(most, total / count)
        return math.ceil(most)


class BlockTexts:
    """Texts made of the blocks of a trace; beyond them, a text of the request's own."""

    shared_words = 0

    def __init__(self, texts: PromptTexts, blocks: Blocks, seed: int) -> None:
        """Use the words of `texts`, which share nothing."""
        self._texts = texts
        self._blocks = blocks
        self._size = blocks.size
        self._draws = DrawSource(seed)
        self._whole = lru_cache(maxsize=_KEPT_BLOCKS)(self._block)

    def text(self, index: int, length: int, opening: int, position: int) -> bytes:
        """Return the text of request `index`, of `length` words."""
        numbers = self._blocks.of(index)
        whole, rest = divmod(length, self._size)
        parts = [self._whole(number) for number in numbers[:whole]]
        if whole < len(numbers):
            parts += [self._block(numbers[whole], rest)] if rest else []
        elif own := length - len(numbers) * self._size:
            parts.append(self._texts.text(_OWN + index, own, opening, position))
        return b" ".join(parts)

    def _block(self, number: int, words: int | None = None) -> bytes:
        draws = self._draws.at(number)
        return self._texts.text(number, words or self._size, draws.opening, draws.position)
