"""Token lengths from options: `N`, or `mean:std` for a truncated normal distribution."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

from loadtest.input_error import InputError

_MOST_TOKENS = 100_000_000  # far beyond any model, and exact in every arithmetic here
_WIDEST = 3.0  # standard deviations on either side; 99.7 % of the normal distribution


@dataclass(frozen=True, slots=True)
class Lengths:
    """Distribution of lengths in tokens, truncated at the same distance on both sides of its mean.

    The distance is 3 standard deviations, or less if the shorter side would fall below `shortest`. With equal
    distances the mean is exactly the requested one, so that offered tokens/s follow from the options.
    """

    mean: float
    std: float
    shortest: int = 1

    @classmethod
    def parse(cls, text: str, option: str) -> Self:
        """Parse `N` or `mean:std`, in tokens.

        Raises InputError, which names `option`, for any other text and for a mean below 1.
        """
        mean_text, colon, std_text = text.strip().partition(":")
        try:
            mean = float(mean_text) if colon else int(mean_text)
            std = float(std_text) if colon else 0.0
        except ValueError:
            raise InputError(
                option, f"'{text}' is not a length", "give tokens as N or mean:std, such as 512 or 512:64"
            ) from None
        if not (abs(mean) <= _MOST_TOKENS and 0 <= std <= _MOST_TOKENS):
            raise InputError(
                option, f"'{text}' is out of range", f"give a mean and a std from 0 to {_MOST_TOKENS:,} tokens"
            )
        if mean < 1:
            raise InputError(option, f"{mean:g} tokens are too few", "ask for a mean of at least 1")
        return cls(mean, std)

    @property
    def bounds(self) -> tuple[int, int]:
        """Shortest and longest length, in tokens, that `Sampler.sample` returns."""
        reach = min(_WIDEST * self.std, self.mean - self.shortest)
        return round(self.mean - reach), round(self.mean + reach)

    def sampler(self) -> "Sampler":
        """Return the sampler of this distribution."""
        return Sampler(self)


class Sampler:
    """Maps uniform fractions to lengths by the inverse of the truncated normal distribution."""

    def __init__(self, lengths: Lengths) -> None:
        """Compute the share of the normal distribution between the bounds."""
        self._shortest, self._longest = lengths.bounds
        self._fixed = round(lengths.mean) if self._shortest == self._longest else None
        if self._fixed is None:
            reach = min(_WIDEST * lengths.std, lengths.mean - lengths.shortest)
            self._normal = NormalDist(lengths.mean, lengths.std)
            self._low = self._normal.cdf(lengths.mean - reach)
            self._share = self._normal.cdf(lengths.mean + reach) - self._low

    def sample(self, fraction: float) -> int:
        """Return the length, in tokens, at this fraction (0 to 1, exclusive) of the distribution."""
        if self._fixed is not None:
            return self._fixed
        return round(self._normal.inv_cdf(self._low + fraction * self._share))
