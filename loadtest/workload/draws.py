"""Random numbers that depend on (seed, index) alone.

A stateful generator would make request 7 depend on who asked for requests 0 to 6. Hashing the index instead
gives every worker the same request 7, in any order and with no coordination.
"""

import struct
from hashlib import blake2b
from typing import NamedTuple

_FIVE_WORDS = struct.Struct("<5Q")


class Draws(NamedTuple):
    """Independent uniform 64-bit integers, one for each thing that is random about a request."""

    endpoint: int
    prompt_length: int
    output_length: int
    opening: int
    position: int


class DrawSource:
    """The draws of every request of a run with this seed."""

    def __init__(self, seed: int) -> None:
        """Any integer is a seed."""
        self._key = blake2b(str(seed).encode(), digest_size=32).digest()

    def at(self, index: int) -> Draws:
        """Return the draws of request `index` (0 and up)."""
        digest = blake2b(index.to_bytes(8, "little"), digest_size=_FIVE_WORDS.size, key=self._key).digest()
        return Draws(*_FIVE_WORDS.unpack(digest))


def fraction(draw: int) -> float:
    """Map a draw to the open interval (0, 1), so that inverse distribution functions stay finite."""
    return ((draw >> 12) + 0.5) / 2**52  # the 52 upper bits: one more would round up to 1
