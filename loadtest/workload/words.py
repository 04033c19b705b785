"""Prompt texts of an exact number of words that differ from their first words on."""

import math
from collections.abc import Sequence
from itertools import accumulate
from random import Random

_TAPE_WORDS = 1 << 16
_OPENING_WORDS = 8


class PromptTexts:
    """Texts made of words from a fixed vocabulary, joined by single spaces.

    A text is: a prefix shared by all texts (empty by default), an opening of 8 words that no other text has, and a
    slice of a tape of random words. The engine's prefix cache matches a prompt from its start, so texts with different
    openings share nothing after the prefix; a slice costs much less than drawing each word.
    """

    def __init__(self, words: Sequence[str], *, seed: int, shared_words: int = 0) -> None:
        """Create the tape for this seed; another seed gives other texts and another prefix.

        `words` must hold no character that JSON escapes.
        """
        random = Random(f"words:{seed}")  # noqa: S311  # a repeatable text is the point
        self._words = [f"{word} ".encode() for word in words]
        tape = random.choices(self._words, k=_TAPE_WORDS)
        self._tape = b"".join(tape)
        self._offsets = [0, *accumulate(map(len, tape))]
        self.shared_words = shared_words
        self._shared = b"".join(random.choices(self._words, k=shared_words))
        # index -> (index * step + start) mod pairs visits every pair of words once before it repeats one
        self._pairs = len(words) ** 2
        self._start = random.randrange(self._pairs)
        self._step = random.randrange(self._pairs)
        while math.gcd(self._step, self._pairs) != 1:
            self._step = random.randrange(self._pairs)

    def text(self, index: int, length: int, opening: int, position: int) -> bytes:
        """Return the text of request `index`: `length` words, the shared prefix included.

        `opening` and `position` are draws of this request. The first two words after the prefix differ from those of
        every other index until all pairs of words are used; the next six are random.
        """
        words, vocabulary = self._words, len(self._words)
        pair = (index * self._step + self._start) % self._pairs
        first, second = divmod(pair, vocabulary)
        head = [words[first], words[second]]
        for _ in range(_OPENING_WORDS - 2):
            opening, word = divmod(opening, vocabulary)
            head.append(words[word])
        own = length - self.shared_words
        if own <= _OPENING_WORDS:
            return (self._shared + b"".join(head[:own]))[:-1]
        return (self._shared + b"".join(head) + self._slice(position % _TAPE_WORDS, own - _OPENING_WORDS))[:-1]

    def _slice(self, start: int, length: int) -> bytes:
        end = start + length
        if end <= _TAPE_WORDS:
            return self._tape[self._offsets[start] : self._offsets[end]]
        rounds, rest = divmod(end - _TAPE_WORDS, _TAPE_WORDS)
        return self._tape[self._offsets[start] :] + self._tape * rounds + self._tape[: self._offsets[rest]]
