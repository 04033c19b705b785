from collections import Counter

import pytest

from loadtest.workload.draws import DrawSource
from loadtest.workload.words import PromptTexts

WORDS = [f"w{letter}{other}" for letter in "abcdefghij" for other in "abcdefghij"]


def texts(length: int, count: int, *, seed: int = 0, shared: int = 0, words: list[str] = WORDS) -> list[str]:
    source, draws = PromptTexts(words, seed=seed, shared_words=shared), DrawSource(seed)
    spans = ((index, draws.at(index)) for index in range(count))
    return [source.text(index, length, draw.opening, draw.position).decode() for index, draw in spans]


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 500, 65_536, 65_545, 200_000])
def test_text_has_the_requested_words(length: int) -> None:
    for text in texts(length, 3):
        words = text.split(" ")
        assert len(words) == length
        assert set(words) <= set(WORDS)


@pytest.mark.parametrize("length", [21, 25, 300])
def test_shared_prefix_counts_in_the_length(length: int) -> None:
    many = [text.split(" ") for text in texts(length, 200, shared=20)]
    assert {len(words) for words in many} == {length}
    assert len({tuple(words[:20]) for words in many}) == 1
    assert len({tuple(words[20:]) for words in many}) > 80  # one own word of 100 in the shortest


def test_first_word_pairs_are_distinct() -> None:
    pairs = [tuple(text.split(" ")[:2]) for text in texts(30, len(WORDS) ** 2)]
    assert len(set(pairs)) == len(WORDS) ** 2


def test_later_words_spread_over_vocabulary() -> None:
    counts = Counter(text.split(" ")[40] for text in texts(60, 10_000))
    # chi-squared with 99 degrees of freedom: mean 99, standard deviation sqrt(198)
    assert sum((counts[word] - 100) ** 2 / 100 for word in WORDS) < 99 + 4 * 198**0.5


def test_another_seed_shares_no_opening() -> None:
    one, other = texts(40, 500, seed=1, shared=16), texts(40, 500, seed=2, shared=16)
    assert one[0].split(" ")[:16] != other[0].split(" ")[:16]
    openings = [{tuple(text.split(" ")[16:24]) for text in many} for many in (one, other)]
    assert not openings[0] & openings[1]


def test_tiny_vocabulary_still_gives_texts() -> None:
    assert len(set(texts(3, 4, words=["yes", "no"]))) == 4
