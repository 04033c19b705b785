from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from loadtest.input_error import InputError
from loadtest.workload import Workload, WorkloadOptions

if TYPE_CHECKING:
    from pathlib import Path

CHAT = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "é \ud83d"}]
TOOLS = [{"type": "function", "function": {"name": "weather"}}]


def load(folder: Path, *lines: Any, **options: Any) -> Workload:
    file = folder / "bodies.jsonl"
    file.write_text("\n\n".join(map(json.dumps, lines)))
    return Workload.load(WorkloadOptions(**{"model": "m", "endpoint": "both", "dataset": file, **options}))


def sent(workload: Workload, count: int) -> list[tuple[str, Any, int]]:
    specs = [workload.request(index) for index in range(count)]
    assert all(spec.prompt_tokens is None for spec in specs)
    return [(spec.endpoint, json.loads(spec.body), spec.output_tokens) for spec in specs]


def test_bodies_are_sent_whole_with_the_runs_model(tmp_path: Path) -> None:
    body = {"model": "gpt", "messages": CHAT, "tools": TOOLS, "temperature": 0.5, "max_completion_tokens": 7}
    prompt = {"prompt": ["a", "b"], "max_tokens": 9, "stream": False}
    workload = load(tmp_path, body, prompt)
    stream = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    assert sorted(sent(workload, 2)) == [
        ("chat", {**body, **stream}, 7),
        ("completions", {**prompt, **stream}, 9),
    ]
    assert workload.distinct == 2
    assert workload.notes == ("whole request bodies: prompt lengths are unknown before the run",)


def test_openai_batch_lines_are_read(tmp_path: Path) -> None:
    batch = [
        {
            "custom_id": "1",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"messages": CHAT, "max_tokens": 3},
        },
        {"custom_id": "2", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x", "max_tokens": 4}},
    ]
    assert sorted((endpoint, tokens) for endpoint, _, tokens in sent(load(tmp_path, *batch), 2)) == [
        ("chat", 3),
        ("completions", 4),
    ]


def test_other_endpoints_bodies_are_left_out(tmp_path: Path) -> None:
    workload = load(tmp_path, {"messages": CHAT}, {"prompt": "x"}, endpoint="chat")
    assert {endpoint for endpoint, _, _ in sent(workload, 4)} == {"chat"}
    assert workload.notes[1:] == (
        "1 requests are for another endpoint than chat; left out",
        "1 requests give no length of the answer: the server decides it",
    )
    with pytest.raises(InputError, match="holds no request for --endpoint completions"):
        load(tmp_path, {"messages": CHAT}, endpoint="completions")


@pytest.mark.parametrize(
    ("own", "options", "lengths"),
    [
        ({"max_tokens": 7}, {}, {"max_tokens": 7}),
        ({"max_completion_tokens": 7}, {"output_tokens": "5"}, {"max_completion_tokens": 5}),
        ({}, {"output_tokens": "5"}, {"max_tokens": 5}),
        ({}, {}, {}),
        ({"max_tokens": 7}, {"body": {"max_completion_tokens": "max_tokens"}}, {"max_completion_tokens": 7}),
        ({"max_tokens": 7}, {"body": {"max_completion_tokens": 3}}, {"max_completion_tokens": 3}),
        ({"max_tokens": 7}, {"body": {"max_tokens": None}}, {}),
        ({"max_tokens": None}, {}, {}),
    ],
)
def test_length_is_the_bodys_unless_given(tmp_path: Path, own: Any, options: Any, lengths: Any) -> None:
    ((_, body, _),) = sent(load(tmp_path, {"messages": CHAT, **own}, **options), 1)
    assert {name: value for name, value in body.items() if name.startswith("max")} == lengths


def test_options_change_bodies(tmp_path: Path) -> None:
    body = {"messages": CHAT, "stream_options": {"x": 1}, "user": "a"}
    workload = load(tmp_path, body, stream=False, ignore_eos=True, body={"user": None, "seed": 1})
    ((_, found, _),) = sent(workload, 1)
    assert found == {"messages": CHAT, "model": "m", "stream": False, "ignore_eos": True, "seed": 1}


def test_seed_decides_the_order_of_bodies(tmp_path: Path) -> None:
    lines = [{"prompt": str(number)} for number in range(30)]
    one, other = (sent(load(tmp_path, *lines, seed=seed), 30) for seed in (1, 2))
    assert one != other
    assert sorted(body["prompt"] for _, body, _ in one) == sorted(map(str, range(30)))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"body": 5}, "line 3: no object"),
        ({"input": "x"}, "line 3: neither messages nor prompt"),
        ({"url": "/v1/embeddings", "body": {"input": "x"}}, "line 3: requests to '/v1/embeddings' are not tested"),
        ({"url": "/v1/completions", "body": {"messages": CHAT}}, "line 3: neither messages nor prompt"),
        ([], "line 3: no object"),
    ],
)
def test_bad_body_is_named_by_its_line(tmp_path: Path, line: Any, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, {"messages": CHAT}, line)
    assert str(caught.value).startswith("--dataset: ")
    assert problem in str(caught.value)
