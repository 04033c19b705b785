from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from loadtest.capacity.bottleneck.step_times import StepLaw, fit_step_law
from loadtest.capacity.engine_sample import EngineSample


def samples(law: StepLaw, count: int, *, noise: float = 0.02, running: float = 4.0) -> list[EngineSample]:
    """An engine that is always busy, looked at after every so many steps."""
    random = Random(1)  # noqa: S311  # a repeatable test is the point
    at = steps = prompt = output = 0.0
    made = []
    for _ in range(count):
        made.append(EngineSample(at, 0.5, running, steps=steps, prompt_tokens=prompt, output_tokens=output))
        more = random.randint(20, 60), random.randint(0, 4000), random.randint(100, 600)
        seconds = law.step_s * more[0] + law.prompt_token_s * more[1] + law.output_token_s * more[2]
        at += seconds * random.uniform(1 - noise, 1 + noise)
        steps, prompt, output = steps + more[0], prompt + more[1], output + more[2]
    return made


def test_the_law_is_found_from_what_the_engine_did() -> None:
    law = StepLaw(0.01, 0.0002, 0.0009)
    found = fit_step_law([samples(law, 60)])
    assert found is not None
    assert found.step_s == pytest.approx(law.step_s, rel=0.15)
    assert found.prompt_token_s == pytest.approx(law.prompt_token_s, rel=0.05)
    assert found.output_token_s == pytest.approx(law.output_token_s, rel=0.15)


def test_work_that_costs_nothing_is_not_told_as_less_than_nothing() -> None:
    found = fit_step_law([samples(StepLaw(0.02, 0.0, 0.0), 60, noise=0.1)])
    assert found is not None
    assert min(found.step_s, found.prompt_token_s, found.output_token_s) >= 0
    assert found.shares(40, 2000, 300)[0] > 0.8


def test_spans_in_which_the_engine_stood_still_say_nothing() -> None:
    assert fit_step_law([samples(StepLaw(0.01, 0.0002, 0.0009), 60, running=0.0)]) is None
    assert fit_step_law([samples(StepLaw(0.01, 0.0002, 0.0009), 10)]) is None


def test_span_idle_at_one_end_says_nothing() -> None:
    made = samples(StepLaw(0.01, 0.0002, 0.0009), 60)
    made[1::2] = [replace(sample, running=0.0) for sample in made[1::2]]
    assert fit_step_law([made]) is None
