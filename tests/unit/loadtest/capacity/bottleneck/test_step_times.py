from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from loadtest.capacity.bottleneck.step_times import StepTimes, fit_step_times
from loadtest.capacity.engine_sample import EngineSample


def samples(truth: StepTimes, count: int, *, noise: float = 0.02, running: float = 4.0) -> list[EngineSample]:
    """Return samples of an engine that is always busy."""
    random = Random(1)  # noqa: S311  # repeatable
    at = steps = prompt = output = 0.0
    made = []
    for _ in range(count):
        made.append(EngineSample(at, 0.5, running, steps=steps, prompt_tokens=prompt, output_tokens=output))
        more = random.randint(20, 60), random.randint(0, 4000), random.randint(100, 600)
        seconds = truth.step_s * more[0] + truth.prompt_token_s * more[1] + truth.output_token_s * more[2]
        at += seconds * random.uniform(1 - noise, 1 + noise)
        steps, prompt, output = steps + more[0], prompt + more[1], output + more[2]
    return made


def test_step_times_are_recovered() -> None:
    truth = StepTimes(0.01, 0.0002, 0.0009)
    found = fit_step_times([samples(truth, 60)])
    assert found is not None
    assert found.step_s == pytest.approx(truth.step_s, rel=0.15)
    assert found.prompt_token_s == pytest.approx(truth.prompt_token_s, rel=0.05)
    assert found.output_token_s == pytest.approx(truth.output_token_s, rel=0.15)


def test_step_times_are_never_negative() -> None:
    found = fit_step_times([samples(StepTimes(0.02, 0.0, 0.0), 60, noise=0.1)])
    assert found is not None
    assert min(found.step_s, found.prompt_token_s, found.output_token_s) >= 0
    assert found.shares(40, 2000, 300)[0] > 0.8


def test_idle_intervals_are_left_out() -> None:
    assert fit_step_times([samples(StepTimes(0.01, 0.0002, 0.0009), 60, running=0.0)]) is None
    assert fit_step_times([samples(StepTimes(0.01, 0.0002, 0.0009), 10)]) is None


def test_collinear_samples_have_no_fit() -> None:
    regular = [
        EngineSample(at, 0.5, 4.0, steps=50 * at, prompt_tokens=90 * at, output_tokens=200 * at) for at in range(60)
    ]
    assert fit_step_times([regular]) is None


def test_span_idle_at_one_end_says_nothing() -> None:
    made = samples(StepTimes(0.01, 0.0002, 0.0009), 60)
    made[1::2] = [replace(sample, running=0.0) for sample in made[1::2]]
    assert fit_step_times([made]) is None
