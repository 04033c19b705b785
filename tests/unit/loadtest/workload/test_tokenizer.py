import json
import shutil
from pathlib import Path
from random import Random

import pytest
from tokenizers import Tokenizer as RawTokenizer

from loadtest.input_error import InputError
from loadtest.workload.endpoints import Endpoint
from loadtest.workload.tokenizer import Tokenizer


def copy(model: Path, to: Path) -> Path:
    return Path(shutil.copytree(model, to / "model"))


def test_one_token_words_add_up_in_any_order(model: Path) -> None:
    words = Tokenizer.read(model).single_token_words(["completions"])
    raw = RawTokenizer.from_file(str(model / "tokenizer.json"))
    assert len(words) > 400
    random = Random(7)  # noqa: S311  # any texts will do
    for length in (1, 2, 50, 700):
        texts = [" ".join(random.choices(words, k=length)) for _ in range(50)]
        assert {len(raw.encode(text, add_special_tokens=False).ids) for text in texts} == {length}


def test_file_is_read_once_per_version(tmp_path: Path, model: Path) -> None:
    # The library never frees the cache of a deleted tokenizer, so a master must not read the file for every run.
    folder = copy(model, tmp_path)
    first, again = Tokenizer.read(folder), Tokenizer.read(folder)
    assert first._encoder is again._encoder
    file = folder / "tokenizer.json"
    file.write_text(file.read_text() + "\n")
    assert Tokenizer.read(folder)._encoder is not first._encoder


def test_merging_words_are_not_used(tmp_path: Path, bos_model: Path) -> None:
    folder = copy(bos_model, tmp_path)
    file = folder / "tokenizer.json"
    data = json.loads(file.read_text())
    vocabulary, merges = data["model"]["vocab"], data["model"]["merges"]
    joined = "\u2581water\u2581river"
    vocabulary[joined] = len(vocabulary)
    merges.append(["\u2581water", "\u2581river"])
    file.write_text(json.dumps(data))
    assert len(RawTokenizer.from_file(str(file)).encode("water river", add_special_tokens=False).ids) == 1
    before, after = (set(Tokenizer.read(model).single_token_words(["completions"])) for model in (bos_model, folder))
    assert before - after == {"water"}


@pytest.mark.parametrize(
    ("name", "endpoint", "head", "tail"),
    [
        ("byte_level_model", "completions", 0, 0),
        ("bos_model", "completions", 1, 0),
        ("bos_model", "chat", 2, 1),
    ],
)
def test_tokens_added_by_server_are_counted(
    name: str, endpoint: Endpoint, head: int, tail: int, request: pytest.FixtureRequest
) -> None:
    tokenizer = Tokenizer.read(request.getfixturevalue(name))
    (tokens,) = tokenizer.tokens(endpoint, ["water river"])
    assert (tokenizer.head(endpoint), len(tokens)) == (head, head + 2 + tail)


def test_chat_counts_the_template(byte_level_model: Path) -> None:
    tokenizer = Tokenizer.read(byte_level_model)
    raw = RawTokenizer.from_file(str(byte_level_model / "tokenizer.json"))
    text = "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nwater river<|im_end|>\n"
    text += "<|im_start|>assistant\n"
    assert tokenizer.tokens("chat", ["water river"]) == [raw.encode(text, add_special_tokens=False).ids]


def test_tokenizer_file_equals_its_folder(model: Path) -> None:
    by_file = Tokenizer.read(model / "tokenizer.json")
    assert by_file.knows("chat")
    assert by_file.tokens("chat", ["water"]) == Tokenizer.read(model).tokens("chat", ["water"])


def test_template_file_overrides_the_config(tmp_path: Path, byte_level_model: Path) -> None:
    folder = copy(byte_level_model, tmp_path)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert len(Tokenizer.read(folder).tokens("chat", ["water river"])[0]) == 2


def test_default_of_several_templates_is_used(tmp_path: Path, byte_level_model: Path) -> None:
    folder = copy(byte_level_model, tmp_path)
    named = [
        {"name": "tool_use", "template": "tools!"},
        {"name": "default", "template": "{{ messages[0].content }}"},
    ]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert len(Tokenizer.read(folder).tokens("chat", ["water river"])[0]) == 2


def test_chat_without_template_is_counted_bare(tmp_path: Path, byte_level_model: Path) -> None:
    folder = copy(byte_level_model, tmp_path)
    (folder / "tokenizer_config.json").unlink()
    tokenizer = Tokenizer.read(folder)
    assert not tokenizer.knows("chat")
    assert tokenizer.knows("completions")
    assert len(tokenizer.tokens("chat", ["water river"])[0]) == 2


def test_file_truncation_and_padding_are_off(tmp_path: Path, byte_level_model: Path) -> None:
    folder = copy(byte_level_model, tmp_path)
    raw = RawTokenizer.from_file(str(folder / "tokenizer.json"))
    raw.enable_truncation(max_length=5)
    raw.enable_padding(length=8)
    raw.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer.read(folder)
    assert [len(ids) for ids in tokenizer.tokens("completions", ["water " * 9 + "water", "water"])] == [10, 1]


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--tokenizer: no file .*/tokenizer.json; give the model's folder"):
        Tokenizer.read(tmp_path)
    with pytest.raises(InputError, match=r"^--tokenizer: no file .*/nothing; "):
        Tokenizer.read(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00\xff", b'{"model": 3}'])
def test_invalid_tokenizer_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"^--tokenizer: .* is not a tokenizer: .*; use a model's tokenizer.json"):
        Tokenizer.read(file)


@pytest.mark.parametrize(
    "config",
    [
        "not json",
        "[]",
        '{"chat_template": "{% if %}"}',
        '{"chat_template": 5}',
        '{"chat_template": [{"name": "default"}]}',
    ],
)
def test_broken_template_is_refused(tmp_path: Path, byte_level_model: Path, config: str) -> None:
    folder = copy(byte_level_model, tmp_path)
    (folder / "tokenizer_config.json").write_text(config)
    with pytest.raises(InputError, match=r"^--tokenizer: cannot read the chat template in "):
        Tokenizer.read(folder)


def test_template_refusing_users_is_reported(tmp_path: Path, byte_level_model: Path) -> None:
    folder = copy(byte_level_model, tmp_path)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no users') }}")
    with pytest.raises(InputError, match="refuses a user message: no users; "):
        Tokenizer.read(folder).tokens("chat", ["hello"])


def test_vocabulary_without_words_is_refused(tmp_path: Path) -> None:
    from tokenizers import models  # noqa: PLC0415  # only this test builds one by hand

    RawTokenizer(models.WordLevel({"water": 0, "x": 1}, unk_token="x")).save(str(tmp_path / "tokenizer.json"))  # noqa: S106
    with pytest.raises(InputError, match="plain words of one token, too few for exact prompts"):
        Tokenizer.read(tmp_path).single_token_words(["completions"])
