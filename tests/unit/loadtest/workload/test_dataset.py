import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from loadtest.input_error import InputError
from loadtest.workload import Workload, WorkloadOptions
from loadtest.workload.dataset import DatasetPrompts, dataset_prompts
from loadtest.workload.draws import DrawSource
from loadtest.workload.tokenizer import Tokenizer


def talk(question: str, answer: str = "fine") -> dict[str, Any]:
    return {
        "id": "x",
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
    }


def write(folder: Path, content: Any) -> Path:
    file = folder / "dataset.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return file


def load(file: Path, tokenizer: Tokenizer | None = None, **options: Any) -> DatasetPrompts:
    return dataset_prompts(
        file,
        WorkloadOptions(model="m", dataset=file, tokenizer=tokenizer.path if tokenizer else None, **options),
        tokenizer,
    )


def questions(prompts: DatasetPrompts, count: int, seed: int = 0) -> list[str]:
    draws = DrawSource(seed)
    return [json.loads(b'"%b"' % prompts.prompt(index, "chat", draws.at(index)).text) for index in range(count)]


def test_each_question_is_sent_once_per_round(tmp_path: Path) -> None:
    texts = [f'question {number} "quoted"\n\té \U0001f600' for number in range(100)]
    prompts = load(write(tmp_path, [talk(text) for text in texts]))
    sent = questions(prompts, 200)
    assert sorted(sent[:100]) == sorted(texts)
    assert sent[100:] == sent[:100]
    assert prompts.distinct == 100


def test_seed_determines_the_order(tmp_path: Path) -> None:
    file = write(tmp_path, [talk(f"question {number}") for number in range(50)])
    assert questions(load(file, seed=1), 50) == questions(load(file, seed=1), 50)
    assert questions(load(file, seed=1), 50) != questions(load(file, seed=2), 50)


def test_lengths_are_the_tokenizers(tmp_path: Path, model: Path) -> None:
    tokenizer = Tokenizer.read(model)
    words = tokenizer.single_token_words(["completions"])
    file = write(tmp_path, [talk(" ".join(words[:count]), " ".join(words[: count * 2])) for count in (3, 40)])
    prompts = load(file, tokenizer, endpoint="both")
    for endpoint in ("chat", "completions"):
        (bare,) = tokenizer.tokens(endpoint, ["water"])
        found = {prompts.prompt(index, endpoint, DrawSource(0).at(index))[1:] for index in range(2)}
        assert found == {(len(bare) - 1 + count, count * 2) for count in (3, 40)}
    assert prompts.common_tokens == {endpoint: tokenizer.head(endpoint) for endpoint in ("chat", "completions")}
    assert prompts.notes == ()


def test_without_tokenizer_answers_are_estimated(tmp_path: Path) -> None:
    prompts = load(write(tmp_path, [talk("question", "é" * 60), talk("question", "a")]))
    found = {prompts.prompt(index, "chat", DrawSource(0).at(index))[1:] for index in range(2)}
    assert found == {(None, 30), (None, 1)}
    assert prompts.notes == (
        "chat: prompt lengths are unknown before the run (no tokenizer, or no chat template)",
        "no --tokenizer: outputs are as long as the answers at 4 bytes a token",
    )


def test_output_length_overrides_the_answers(tmp_path: Path) -> None:
    prompts = load(write(tmp_path, [talk("question", "a" * 400)]), output_tokens="7")
    assert prompts.prompt(0, "chat", DrawSource(0).at(0)).output_tokens == 7


def test_first_answered_question_is_used(tmp_path: Path) -> None:
    sides = [
        ("system", "be kind"),
        ("gpt", "hello"),
        ("human", ""),
        ("gpt", "?"),
        ("human", "why"),
        ("human", "how"),
    ]
    sides += [("gpt", "so"), ("human", "what"), ("gpt", "that")]
    dataset = [{"conversations": [{"from": who, "value": text} for who, text in sides]}]
    assert questions(load(write(tmp_path, dataset)), 1) == ["how"]


def test_unusable_conversations_are_counted(tmp_path: Path) -> None:
    dataset = [talk("good"), {"conversations": []}, talk("", "x"), talk("long " * 500, "x")]
    prompts = load(write(tmp_path, dataset), max_model_len=100, output_tokens="10")
    assert questions(prompts, 1) == ["good"]
    assert prompts.distinct == 1
    assert prompts.notes[:2] == (
        "2 conversations have no question with an answer; left out",
        "1 conversations exceed the server's 100 tokens; left out",
    )


def test_longest_output_must_fit_too(tmp_path: Path, byte_level_model: Path) -> None:
    tokenizer = Tokenizer.read(byte_level_model)
    file = write(tmp_path, [talk("water river", "stone")])
    options: dict[str, Any] = {"endpoint": "completions", "output_tokens": "10:3"}
    assert load(file, tokenizer, max_model_len=2 + 19, **options).distinct == 1
    with pytest.raises(InputError, match="0 without a question and an answer, 1 too long"):
        load(file, tokenizer, max_model_len=2 + 18, **options)


def test_one_conversation_per_line_is_read(tmp_path: Path) -> None:
    lines = b"\n".join(json.dumps(talk(f"question {number}")).encode() for number in range(5))
    assert sorted(questions(load(write(tmp_path, b"\xef\xbb\xbf" + lines + b"\n\n")), 5)) == [
        f"question {number}" for number in range(5)
    ]


def test_half_a_surrogate_pair_is_replaced(tmp_path: Path, byte_level_model: Path) -> None:
    content = rb'{"conversations":[{"from":"human","value":"cut \ud83d"},{"from":"gpt","value":"off"}]}'
    prompts = load(write(tmp_path, content), Tokenizer.read(byte_level_model))
    assert questions(prompts, 1) == ["cut \ufffd"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds no usable conversation (0 without a question and an answer, 0 too long)"),
        (b"[]", "holds no usable conversation"),
        ([{"conversations": []}], "holds no usable conversation (1 without"),
        (b"TIMESTAMP,a\n", "line 1: Expecting value"),
        ([talk("a"), 5], "conversation 2: no list 'conversations'"),
        ([talk("a"), {"conversations": "b"}], "conversation 2: no list 'conversations'"),
        (
            [talk("a"), {"conversations": [{"from": "human"}]}],
            "conversation 2: a turn has no 'from' and 'value'",
        ),
        (json.dumps([talk("a"), talk("b")]).encode()[:-40], "after conversation 1: "),
        (json.dumps(talk("a")).encode() + b'\n{"conversations"', "line 2: "),
        (b"\x1f\x8b\x08\xff", "line 1: "),
    ],
)
def test_bad_file_error_names_the_place(tmp_path: Path, content: Any, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, content))
    assert str(caught.value).startswith("--dataset: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--dataset: cannot read .*/none.json: No such file or directory; "):
        load(tmp_path / "none.json")


def test_only_questions_stay_in_memory(tmp_path: Path) -> None:
    later = [{"from": who, "value": "x" * 10_000} for who in ("human", "gpt")]
    talks = [talk("question " * 10, "answer") for _ in range(1000)]
    for conversation in talks:
        conversation["conversations"] += later
    file = write(tmp_path, talks)
    tracemalloc.start()
    prompts = load(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert prompts.distinct == 1000
    assert peak < file.stat().st_size / 10


def test_dataset_goes_to_both_endpoints(tmp_path: Path) -> None:
    file = write(tmp_path, [talk(f"question {number}") for number in range(3)])
    workload = Workload.load(WorkloadOptions(model="m", dataset=file, endpoint="both"))
    assert {workload.request(index).endpoint for index in range(30)} == {"chat", "completions"}
    assert workload.distinct == 3
