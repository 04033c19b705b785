import math
from dataclasses import replace
from statistics import fmean, pstdev

import pytest

from loadtest.input_error import InputError
from loadtest.workload.lengths import Lengths

FRACTIONS = [(number + 0.5) / 20_000 for number in range(20_000)]


def test_single_number_is_a_fixed_length() -> None:
    lengths = Lengths.parse(" 512 ", "--prompt-tokens")
    assert lengths.bounds == (512, 512)
    assert {lengths.sampler().sample(fraction) for fraction in FRACTIONS[::100]} == {512}


def test_samples_have_the_requested_mean_and_std() -> None:
    sampler = Lengths.parse("400:50", "--prompt-tokens").sampler()
    sample = [sampler.sample(fraction) for fraction in FRACTIONS]
    assert fmean(sample) == pytest.approx(400, abs=0.01)
    # a normal distribution cut at 3 standard deviations keeps 98.7 % of its standard deviation
    cut = math.sqrt(1 - 2 * 3 * math.exp(-4.5) / math.sqrt(2 * math.pi) / math.erf(3 / math.sqrt(2)))
    assert pstdev(sample) == pytest.approx(50 * cut, rel=0.002)
    assert (min(sample), max(sample)) == (250, 550)


@pytest.mark.parametrize(("text", "bounds"), [("100:80", (20, 180)), ("100:5000", (20, 180)), ("100:10", (70, 130))])
def test_wide_distribution_is_cut_symmetrically(text: str, bounds: tuple[int, int]) -> None:
    lengths = replace(Lengths.parse(text, "--prompt-tokens"), shortest=20)
    sample = [lengths.sampler().sample(fraction) for fraction in FRACTIONS]
    assert lengths.bounds == bounds
    assert (min(sample), max(sample)) == bounds
    assert fmean(sample) == pytest.approx(100, abs=0.01)


def test_every_sample_lies_within_bounds() -> None:
    sampler = Lengths.parse("10:4", "--output-tokens").sampler()
    assert sampler.sample(1e-18) == 1
    assert sampler.sample(1 - 1e-16) == 19


@pytest.mark.parametrize("text", ["", "abc", "5.5", "1:2:3", ":", "10:", ":3", "10:x", "0x10", "1e3"])
def test_invalid_length_error_has_an_example(text: str) -> None:
    with pytest.raises(InputError, match=rf"^--output-tokens: '{text}' is not a length; give tokens as N or mean:std"):
        Lengths.parse(text, "--output-tokens")


@pytest.mark.parametrize("text", ["10:-1", "nan:1", "inf:1", "10:inf", "10:nan"])
def test_lengths_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^--output-tokens: .* out of range"):
        Lengths.parse(text, "--output-tokens")


@pytest.mark.parametrize("text", ["0", "-3", "0.5:1"])
def test_too_short_mean_error_names_the_minimum(text: str) -> None:
    with pytest.raises(InputError, match="too few; ask for a mean of at least 1"):
        Lengths.parse(text, "--prompt-tokens")
