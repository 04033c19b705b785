"""Random numbers that depend on (seed, index) only.

With a stateful generator, request 7 would depend on which process made requests 0 to 6. Hashing the index gives
every worker the same request 7, in any order and without coordination.
"""

import struct
from hashlib import blake2b
from typing import NamedTuple

_FIVE_WORDS = struct.Struct("<5Q")


class Draws(NamedTuple):
    """Independent uniform 64-bit integers, one for each random property of a request."""

    endpoint: int
    prompt_length: int
    output_length: int
    opening: int
    position: int


class DrawSource:
    """Source of the draws of all requests with this seed."""

    def __init__(self, seed: int) -> None:
        """Any integer is a valid seed."""
        self._key = blake2b(str(seed).encode(), digest_size=32).digest()

    def at(self, index: int) -> Draws:
        """Return the draws of request `index` (0 and up)."""
        digest = blake2b(index.to_bytes(8, "little"), digest_size=_FIVE_WORDS.size, key=self._key).digest()
        return Draws(*_FIVE_WORDS.unpack(digest))


def fraction(draw: int) -> float:
    """Map a draw to the open interval (0, 1), where inverse distribution functions are finite."""
    return ((draw >> 12) + 0.5) / 2**52  # the upper 52 bits: with one more, the largest would round to 1
