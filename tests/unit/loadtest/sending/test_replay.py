import math

import pytest

from loadtest.input_error import InputError
from loadtest.sending.replay import replay


def test_times_are_replayed_as_recorded_or_faster() -> None:
    assert list(replay([0, 1.5, 4])) == [0, 1.5, 4]
    assert list(replay([0, 1.5, 4], speed=2)) == [0, 0.75, 2]


@pytest.mark.parametrize("speed", [0, -2, math.nan, math.inf])
def test_a_speed_that_is_none_is_refused_before_the_run(speed: float) -> None:
    with pytest.raises(InputError, match=r"^--trace-speed: "):
        replay([0], speed=speed)
