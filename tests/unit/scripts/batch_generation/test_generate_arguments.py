from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import settings as engine_settings
from batch_generation.batch_prompts import BatchPrompt, WrongLine
from batch_generation.generate_arguments import after, fingerprint, parser, prompts, sampling

if TYPE_CHECKING:
    from pathlib import Path


def args(*words: str) -> Any:
    return parser().parse_intermixed_args(words)


SETTINGS = engine_settings.read({"MODEL_ID": "a/b"})


def test_given_options_override_sampling() -> None:
    assert sampling(args("hi")) == {"max_tokens": 128}
    said = args("hi", "--temperature", "0", "--stop", "a", "--stop", "b", "--stop-token-ids", "1", "2", "--seed", "0")
    assert sampling(said) == {
        "max_tokens": 128,
        "temperature": 0.0,
        "seed": 0,
        "stop": ["a", "b"],
        "stop_token_ids": [1, 2],
    }


def test_fingerprint_follows_answer_settings() -> None:
    same = fingerprint(args("hi"), SETTINGS)
    assert fingerprint(args("other", "--output", "x", "--json"), SETTINGS) == same
    others = [("--temperature", "1"), ("--max-tokens", "9"), ("--chat",), ("--system", "s"), ("--seed", "1")]
    prints = {fingerprint(args("hi", *words), SETTINGS) for words in others}
    prints.add(fingerprint(args("hi"), dataclasses.replace(SETTINGS, model_id="a/c")))
    assert len(prints | {same}) == len(others) + 2


def test_missing_input_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(engine_settings.SettingError, match="cannot be read: No such file"):
        prompts(args("--input", str(tmp_path / "no.jsonl")))


def test_arguments_with_file_are_refused() -> None:
    with pytest.raises(engine_settings.SettingError, match="choose one"):
        prompts(args("hi", "--input", "x"))


def test_jsonl_is_detected_by_name(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"prompt": "a"}\n\n{"prompt": "b"}')
    items, total = prompts(args("--input", str(file)))
    assert (list(items), total) == ([BatchPrompt(1, "a"), BatchPrompt(3, "b")], 3)


def test_stopped_run_continues() -> None:
    items = iter([BatchPrompt(1, "a"), WrongLine(2, "x"), BatchPrompt(3, "c")])
    assert list(after(items, {"line": 2, "error": "x"})) == [BatchPrompt(3, "c")]


@pytest.mark.parametrize("last", [{"line": 1, "prompt": "z"}, {"line": 2, "prompt": "b"}, {"line": 9, "prompt": "a"}])
def test_changed_input_is_refused(last: dict[str, Any]) -> None:
    with pytest.raises(engine_settings.SettingError, match="is another now"):
        after(iter([BatchPrompt(1, "a"), BatchPrompt(3, "c")]), last)
