import math
from statistics import correlation, fmean

from loadtest.workload.draws import Draws, DrawSource, fraction

N = 5000


def test_draws_depend_on_seed_and_index() -> None:
    assert DrawSource(1).at(7) == DrawSource(1).at(7)
    everything = {value for seed in range(3) for index in range(100) for value in DrawSource(seed).at(index)}
    assert len(everything) == 3 * 100 * len(Draws._fields)


def test_draws_are_uniform_and_independent() -> None:
    columns = [[fraction(value) for value in column] for column in zip(*map(DrawSource(0).at, range(N)), strict=True)]
    for number, column in enumerate(columns):
        assert abs(fmean(column) - 0.5) < 4 * math.sqrt(1 / 12 / N)
        assert abs(correlation(column[1:], column[:-1])) < 4 / math.sqrt(N)
        for other in columns[:number]:
            assert abs(correlation(column, other)) < 4 / math.sqrt(N)


def test_fraction_is_never_0_or_1() -> None:
    assert 0 < fraction(0) < fraction(2**63) < fraction(2**64 - 1) < 1
