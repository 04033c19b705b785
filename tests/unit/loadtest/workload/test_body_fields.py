from __future__ import annotations

import json
from typing import Any

import pytest

from loadtest.input_error import InputError
from loadtest.workload import Workload, WorkloadOptions
from loadtest.workload.body_fields import parse_body
from tests.rig.loadtest_objects import options

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


def bodies(text: str, **more: Any) -> list[dict[str, Any]]:
    asked = WorkloadOptions(model="m", prompt_tokens="9", body=parse_body(text), **more)
    workload = Workload.load(asked)
    return [json.loads(workload.request(index).body) for index in range(20)]


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_fields_are_added_replaced_and_removed(endpoint: str) -> None:
    text = 'temperature=0.7\nuser="é\\"="\nstream_options=\nresponse_format={"type":"json_object"}\nstop=["a"]'
    (body, *_) = bodies(text, endpoint=endpoint)
    body.pop("messages" if endpoint == "chat" else "prompt")
    assert body == {
        "model": "m",
        "temperature": 0.7,
        "stream": True,
        "user": 'é"=',
        "response_format": {"type": "json_object"},
        "stop": ["a"],
        "max_tokens": 128,
    }


@pytest.mark.parametrize(
    ("text", "sent", "tokens"),
    [
        ("max_completion_tokens=5", {"max_completion_tokens": 5}, 5),
        ("max_tokens=\nmax_completion_tokens=5", {"max_completion_tokens": 5}, 5),
        ('{"max_tokens": null, "max_completion_tokens": 5}', {"max_completion_tokens": 5}, 5),
        ("max_tokens=6\nmax_completion_tokens=5", {"max_tokens": 6, "max_completion_tokens": 5}, 5),
        ("max_tokens=6", {"max_tokens": 6}, 6),
        ("max_tokens=null", {}, 128),
        ("max_completion_tokens=", {"max_tokens": 128}, 128),
    ],
)
def test_length_goes_by_the_name_asked_for(text: str, sent: dict[str, int], tokens: int) -> None:
    workload = Workload.load(WorkloadOptions(model="m", body=parse_body(text)))
    spec = workload.request(0)
    body = json.loads(spec.body)
    assert {name: value for name, value in body.items() if name.startswith("max")} == sent
    assert spec.output_tokens == tokens


def test_newer_name_takes_each_requests_length() -> None:
    plain, renamed = (
        bodies("", output_tokens="60:20"),
        bodies("max_completion_tokens=max_tokens", output_tokens="60:20"),
    )
    assert [body["max_completion_tokens"] for body in renamed] == [body["max_tokens"] for body in plain]
    assert not any("max_tokens" in body for body in renamed)


def test_tools_make_prompt_lengths_unknown() -> None:
    asked: dict[str, Any] = {"model": "m", "prompt_tokens": "90"}
    plain = Workload.load(WorkloadOptions(**asked))
    tools = Workload.load(WorkloadOptions(**asked, body={"tools": TOOLS}))
    assert tools.request(0).prompt_tokens is None
    assert tools.common_tokens["chat"] == plain.common_tokens["chat"] + len(json.dumps(TOOLS))
    assert tools.notes[-1] == "--body changes the prompts: their lengths are unknown before the run"
    assert plain.notes == tools.notes[:-1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("temperature", "'temperature' has no key and '='"),
        ("=5", "'=5' has no key and '='"),
        ("user=me", "user: 'me' is no JSON; write it like"),
        ("{1}", "the object: '{1}' is no JSON"),
        ("a=" + "[" * 100_000, "a: '[[["),
        ("model=x", "model is set by another option; use --model"),
        ("stream=false", "use --stream or --no-stream"),
        ('{"messages": []}', "use --dataset"),
    ],
)
def test_bad_field_is_refused_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_body(text)
    assert str(caught.value).startswith("--body: ")
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 200


def test_option_may_be_repeated_or_be_an_object() -> None:
    wanted = {"temperature": 1, "tools": TOOLS, "user": None}
    tools = json.dumps(TOOLS, indent=2)
    assert options("--body", "temperature=1", "--body", f"tools={tools}", "--body", "user=").workload.body == wanted
    assert options("--body", json.dumps(wanted, indent=2)).workload.body == wanted
    with pytest.raises(InputError, match="user: 'me' is no JSON"):
        options("--body", "temperature=1", "--body", "user=me")
