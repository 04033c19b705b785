import json
import random

import pytest

from loadtest.workload import Workload, WorkloadOptions


def load(**options: object) -> Workload:
    return Workload.load(WorkloadOptions(model="m", **options))  # type: ignore[arg-type]  # tests pass any option


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_body_is_what_the_endpoint_takes(endpoint: str, stream: bool) -> None:
    spec = load(endpoint=endpoint, stream=stream, prompt_tokens="40", output_tokens="7", ignore_eos=True).request(3)
    body = json.loads(spec.body)
    text = body.pop("prompt") if endpoint == "completions" else body.pop("messages")[0].pop("content")
    assert len(text.split(" ")) == 40
    assert body.pop("stream_options", None) == ({"include_usage": True} if stream else None)
    assert body == {"model": "m", "temperature": 0, "stream": stream, "ignore_eos": True, "max_tokens": 7}
    assert (spec.index, spec.endpoint, spec.output_tokens) == (3, endpoint, 7)


def test_a_request_does_not_depend_on_who_asked_for_others() -> None:
    options = {"endpoint": "both", "prompt_tokens": "60:20", "output_tokens": "30:10", "seed": 5}
    one = load(**options)
    forwards = [one.request(index) for index in range(200)]
    order = random.Random(1).sample(range(200), 200)  # noqa: S311  # a shuffle
    other = load(**options)
    shuffled = {index: other.request(index) for index in order}
    assert [shuffled[index] for index in range(200)] == forwards


def test_another_seed_gives_other_requests() -> None:
    bodies = {load(seed=seed).request(index).body for seed in range(5) for index in range(50)}
    assert len(bodies) == 250
