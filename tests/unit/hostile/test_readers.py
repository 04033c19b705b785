"""Every reader of untrusted input survives corrupted seeds; the examples are the same in every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.hostile.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = 150
# Typical breakers: ends of lines and strings, numbers out of range, partial characters, deep nesting.
NASTY = [
    b"\r",
    b"\n\n",
    b"\0",
    b'"',
    b"\\",
    b"{",
    b"[" * 3000,
    b"-1",
    b"1e999",
    b"9" * 400,
    b"NaN",
    b"\xff",
    b"\xed\xa0\x80",
]


@st.composite
def spoilt(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed with up to four places cut out, doubled or overwritten; or random bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        piece = draw(st.one_of(st.sampled_from(NASTY), st.binary(max_size=4), st.just(data[start:end] * 2)))
        data = (data[:start] + piece + data[end:])[:50_000]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_raise_nothing(name: str) -> None:
    for seed in (b"", *TARGETS[name].seeds):
        TARGETS[name].check(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_corrupted_input_raises_nothing(name: str) -> None:
    target = TARGETS[name]

    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(spoilt(target.seeds))
    def attack(data: bytes) -> None:
        target.check(data)

    attack()
