import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from loadtest.input_error import InputError
from loadtest.workload import RequestSpec, Workload, WorkloadOptions
from loadtest.workload.tokenizer import Tokenizer

BLOCK = 16  # tokens; the engine's prefix cache matches whole blocks


def load(**options: Any) -> Workload:
    return Workload.load(WorkloadOptions(model="m", **options))


def text_of(spec: RequestSpec) -> str:
    body = json.loads(spec.body)
    text = body["prompt"] if spec.endpoint == "completions" else body["messages"][0]["content"]
    assert isinstance(text, str)
    return text


def tokens_of(specs: list[RequestSpec], tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.tokens(spec.endpoint, [text_of(spec)])[0] for spec in specs]


def trace(folder: Path, *rows: str) -> Path:
    file = folder / "trace.csv"
    file.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    return file


@pytest.mark.parametrize("shared", [0, 19])
@pytest.mark.parametrize("length", [50, 512, 5000])
def test_prompts_have_the_requested_tokens(model: Path, length: int, shared: int) -> None:
    workload = load(
        endpoint="both", prompt_tokens=str(length), shared_prefix_tokens=shared, tokenizer=model, seed=length
    )
    specs = [workload.request(index) for index in range(60)]
    assert {spec.endpoint for spec in specs} == {"chat", "completions"}
    assert {spec.prompt_tokens for spec in specs} == {length}
    assert {len(tokens) for tokens in tokens_of(specs, Tokenizer.read(model))} == {length}
    assert workload.notes == ()


def test_varying_lengths_are_each_exact(model: Path) -> None:
    workload = load(endpoint="both", prompt_tokens="200:40", output_tokens="60:10", tokenizer=model)
    specs = [workload.request(index) for index in range(1000)]
    assert [len(tokens) for tokens in tokens_of(specs, Tokenizer.read(model))] == [spec.prompt_tokens for spec in specs]
    # 4 standard errors of the mean
    assert abs(fmean(spec.prompt_tokens or 0 for spec in specs) - 200) < 4 * 40 / 1000**0.5
    assert abs(fmean(spec.output_tokens for spec in specs) - 60) < 4 * 10 / 1000**0.5
    assert len({spec.prompt_tokens for spec in specs}) > 100


def test_wide_distribution_keeps_its_mean() -> None:
    workload = load(prompt_tokens="100:300", shared_prefix_tokens=39)
    lengths = [len(text_of(workload.request(index)).split(" ")) for index in range(2000)]
    assert (min(lengths), max(lengths)) == (40, 160)
    # nearly uniform over its range: 4 standard errors of the mean
    assert abs(fmean(lengths) - 100) < 4 * 120 / (12 * 2000) ** 0.5


def test_shortest_prompt_has_one_own_token(model: Path) -> None:
    tokenizer = Tokenizer.read(model)
    added = max(len(tokenizer.tokens(endpoint, ["water"])[0]) - 1 for endpoint in ("chat", "completions"))
    options: dict[str, Any] = {"endpoint": "both", "shared_prefix_tokens": 5, "tokenizer": model}
    workload = load(prompt_tokens=str(added + 6), **options)
    assert workload.request(0).prompt_tokens == added + 6
    with pytest.raises(InputError) as caught:
        load(prompt_tokens=str(added + 5), **options)
    assert str(caught.value) == (
        f"--prompt-tokens: {added + 5} tokens are too few for {added} of the template, 5 of the shared prefix"
        f" and 1 of its own; ask for {added + 6} or more"
    )


def test_prompts_share_only_the_intended_blocks(model: Path) -> None:
    tokenizer = Tokenizer.read(model)
    firsts = set()
    count = 0
    for seed in range(4):
        workload = load(endpoint="completions", prompt_tokens="64", tokenizer=model, seed=seed)
        specs = [workload.request(index) for index in range(1000)]
        firsts |= {tuple(tokens[:BLOCK]) for tokens in tokens_of(specs, tokenizer)}
        count += len(specs)
    assert len(firsts) == count


@pytest.mark.parametrize("shared", [0, 40])
def test_common_start_has_the_stated_length(model: Path, shared: int) -> None:
    tokenizer = Tokenizer.read(model)
    for endpoint in ("chat", "completions"):
        workload = load(endpoint=endpoint, prompt_tokens="128", shared_prefix_tokens=shared, tokenizer=model)
        common = workload.common_tokens[endpoint]
        assert common == tokenizer.head(endpoint) + shared
        tokens = tokens_of([workload.request(index) for index in range(300)], tokenizer)
        assert len({tuple(ids[:common]) for ids in tokens}) == 1
        assert len({tuple(ids[common : common + 2]) for ids in tokens}) == 300


def test_without_tokenizer_lengths_are_words() -> None:
    workload = load(prompt_tokens="100", shared_prefix_tokens=10)
    spec = workload.request(0)
    assert spec.prompt_tokens is None
    assert len(text_of(spec).split(" ")) == 100
    assert workload.notes == ("no --tokenizer: prompt lengths are approximate, one common English word a token",)
    assert workload.common_tokens == {"chat": 10}


def test_without_template_chat_is_approximate(tmp_path: Path, byte_level_model: Path) -> None:
    bare = tmp_path / "tokenizer.json"
    bare.write_bytes((byte_level_model / "tokenizer.json").read_bytes())
    workload = load(endpoint="both", prompt_tokens="100", tokenizer=bare)
    specs = [workload.request(index) for index in range(30)]
    assert {(spec.endpoint, spec.prompt_tokens) for spec in specs} == {("chat", None), ("completions", 100)}
    assert [len(text_of(spec).split(" ")) for spec in specs] == [100] * 30
    assert workload.notes == (
        f"{bare} has no chat template beside it: the tokens of the server's template come on top",
    )


def test_too_long_lengths_are_refused() -> None:
    load(prompt_tokens="1900:20", output_tokens="88", max_model_len=2048)
    with pytest.raises(
        InputError, match=r"^--prompt-tokens: up to 1960 prompt and 89 output tokens make 2049, but the"
    ):
        load(prompt_tokens="1900:20", output_tokens="89", max_model_len=2048)


def test_truncating_template_is_found_early(tmp_path: Path, byte_level_model: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((byte_level_model / "tokenizer.json").read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content[:1000] }}")
    with pytest.raises(InputError, match=r"^--tokenizer: chat prompts do not keep their length: .* not 512"):
        load(tokenizer=tmp_path, prompt_tokens="512")


def test_words_merging_with_template_are_unused(tmp_path: Path, bos_model: Path) -> None:
    data = json.loads((bos_model / "tokenizer.json").read_text())
    vocabulary, merges = data["model"]["vocab"], data["model"]["merges"]
    for word in ("water", "river"):
        vocabulary[f"\u2581a\u2581{word}"] = len(vocabulary)
        merges.append(["\u2581a", f"\u2581{word}"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    (tmp_path / "chat_template.jinja").write_text("a {{ messages[0].content }}")
    tokenizer = Tokenizer.read(tmp_path)
    unframed = set(tokenizer.single_token_words(["completions"]))
    assert unframed - set(tokenizer.single_token_words(["chat"])) == {"water", "river"}
    workload = load(tokenizer=tmp_path, prompt_tokens="50")
    specs = [workload.request(index) for index in range(500)]
    assert {len(tokens) for tokens in tokens_of(specs, tokenizer)} == {50}


def test_trace_gives_lengths_line_by_line(tmp_path: Path, model: Path) -> None:
    file = trace(tmp_path, "0,300,10", "2,80,20", "3,500,30")
    workload = load(trace=file, endpoint="completions", tokenizer=model)
    specs = [workload.request(index) for index in range(6)]
    assert [(spec.prompt_tokens, spec.output_tokens) for spec in specs] == [
        (300, 10),
        (80, 20),
        (500, 30),
    ] * 2
    assert len({text_of(spec)[:20] for spec in specs}) == 6
    assert workload.trace is not None
    assert list(workload.trace.times) == [0, 2, 3]
    assert workload.notes == ()


def test_short_trace_prompts_are_lengthened(tmp_path: Path, bos_model: Path) -> None:
    workload = load(trace=trace(tmp_path, "0,3,1", "1,30,1"), tokenizer=bos_model, shared_prefix_tokens=20)
    assert [workload.request(index).prompt_tokens for index in range(2)] == [24, 30]
    (note,) = workload.notes
    assert note == (
        "chat: 1 of the trace's 2 prompts are shorter than template, shared prefix and one word;"
        " they are lengthened to 24 tokens"
    )


def test_too_long_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--trace: 1 of 2 requests"):
        load(trace=trace(tmp_path, "0,300,10", "2,2000,49"), max_model_len=2048)


def test_lengths_are_known_with_ignore_eos(model: Path) -> None:
    workload = load(endpoint="both", prompt_tokens="200:40", output_tokens="60:10", tokenizer=model, ignore_eos=True)
    specs = [workload.request(index) for index in range(500)]
    assert workload.lengths(500) == [(spec.prompt_tokens, spec.output_tokens) for spec in specs]
    assert load(tokenizer=model).lengths(500) is None  # the model decides the length of its output
    assert load(ignore_eos=True).lengths(500) is None  # no tokenizer


def blocks(folder: Path, *rows: tuple[int, list[int]]) -> Path:
    file = folder / "trace.jsonl"
    fields = [{"timestamp": 0, "input_length": tokens, "output_length": 5, "hash_ids": ids} for tokens, ids in rows]
    file.write_text("\n".join(map(json.dumps, fields)))
    return file


def test_blocks_of_a_trace_are_shared_beginnings(tmp_path: Path, model: Path) -> None:
    rows = [(1200, [4, 5, 6]), (1100, [4, 5, 7]), (1200, [4, 5, 6]), (700, [8, 5]), (2000, [4])]
    workload = load(trace=blocks(tmp_path, *rows), tokenizer=model, endpoint="chat", seed=2)
    specs = [workload.request(index) for index in range(len(rows))]
    assert [spec.prompt_tokens for spec in specs] == [tokens for tokens, _ in rows]
    tokenizer = Tokenizer.read(model)
    tokens = tokens_of(specs, tokenizer)
    assert [len(each) for each in tokens] == [spec.prompt_tokens for spec in specs]
    head = tokenizer.head("chat")

    def shared(one: int, other: int) -> int:
        return next((n for n, (a, b) in enumerate(zip(tokens[one], tokens[other], strict=False)) if a != b), -1)

    assert shared(0, 1) == head + 1024
    assert shared(0, 3) == head
    assert shared(0, 4) == head + 512
    assert tokens[0] == tokens[2]
    assert workload.common_tokens["chat"] == head + 742  # (1024 + 1200) / 3, its highest
    assert workload.request(0) == load(trace=blocks(tmp_path, *rows), tokenizer=model, endpoint="chat", seed=2).request(
        0
    )


def test_blocks_and_a_shared_prefix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--shared-prefix-tokens: the trace says what prompts share; leave it out"):
        load(trace=blocks(tmp_path, (600, [1, 2])), shared_prefix_tokens=5)
