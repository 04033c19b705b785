"""Synthetic prompts of requested lengths, made of words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from loadtest.input_error import InputError
from loadtest.workload.draws import Draws, fraction
from loadtest.workload.endpoints import Endpoint
from loadtest.workload.english import COMMON_WORDS
from loadtest.workload.lengths import Lengths
from loadtest.workload.prompts import Prompt
from loadtest.workload.tokenizer import Tokenizer
from loadtest.workload.trace import Trace
from loadtest.workload.trace_blocks import BlockTexts
from loadtest.workload.words import PromptTexts
from loadtest.workload.workload_options import DEFAULT_OUTPUT_TOKENS, DEFAULT_PROMPT_TOKENS, WorkloadOptions


@dataclass(frozen=True, slots=True)
class Frame:
    """Tokens that a server adds to the words of a prompt: `added` in total, `head` of them in front.

    `exact` is False if the model's files were not available to count them.
    """

    head: int = 0
    added: int = 0
    exact: bool = False


class Shapes(Protocol):
    """Source of the lengths of prompts and outputs."""

    def shape(self, index: int, draws: Draws) -> tuple[int, int]:
        """Return (prompt tokens, output tokens) of request `index`."""


class SampledShapes:
    """Lengths drawn from distributions."""

    def __init__(self, prompt: Lengths, output: Lengths) -> None:
        """Use the distributions of both lengths."""
        self._prompt = prompt.sampler()
        self._output = output.sampler()

    def shape(self, index: int, draws: Draws) -> tuple[int, int]:  # noqa: ARG002  # the draws are the index's
        """Return (prompt tokens, output tokens)."""
        return (
            self._prompt.sample(fraction(draws.prompt_length)),
            self._output.sample(fraction(draws.output_length)),
        )


class SyntheticPrompts:
    """Texts of the lengths given by the shapes, different from each other from their first own token on."""

    distinct = None

    def __init__(
        self,
        texts: PromptTexts | BlockTexts,
        shapes: Shapes,
        frames: Mapping[Endpoint, Frame],
        notes: Sequence[str],
        *,
        shared_tokens: int,
    ) -> None:
        """Use `synthetic_prompts`, which prepares the parts."""
        self._texts = texts
        self._shared_tokens = shared_tokens
        self._shapes = shapes
        self._frames = dict(frames)
        self.notes = tuple(notes)

    @property
    def common_tokens(self) -> dict[Endpoint, int]:
        """Length of the template's head and the shared prefix, or of a trace's shared blocks."""
        return {endpoint: frame.head + self._shared_tokens for endpoint, frame in self._frames.items()}

    def prompt(self, index: int, endpoint: Endpoint, draws: Draws) -> Prompt:
        """Return the prompt of request `index`, with at least one word of its own."""
        frame = self._frames[endpoint]
        wanted, output_tokens = self._shapes.shape(index, draws)
        words = max(wanted - frame.added, self._texts.shared_words + 1)
        text = self._texts.text(index, words, draws.opening, draws.position)
        return Prompt(text, words + frame.added if frame.exact else None, output_tokens)


def synthetic_prompts(options: WorkloadOptions, tokenizer: Tokenizer | None, trace: Trace | None) -> SyntheticPrompts:
    """Prepare prompts of the lengths in the options, or in the trace. Raises InputError."""
    words: Sequence[str] = tokenizer.single_token_words(options.endpoints) if tokenizer else COMMON_WORDS
    frames = {endpoint: _frame(endpoint, tokenizer, words[0]) for endpoint in options.endpoints}
    notes = _approximations(frames, tokenizer)
    shapes: Shapes
    if trace:
        trace.check_fits(options.max_model_len)
        notes += _lengthened(trace, frames, options.shared_prefix_tokens)
        notes += trace.notes
        shapes = trace
    else:
        shapes = _sampled_shapes(options, max(frame.added for frame in frames.values()))
    shared = options.shared_prefix_tokens
    plain = PromptTexts(words, seed=options.seed, shared_words=shared)
    texts: PromptTexts | BlockTexts = plain
    if trace and trace.blocks:
        if shared:
            raise InputError("--shared-prefix-tokens", "the trace says what prompts share", "leave it out")
        texts = BlockTexts(plain, trace.blocks, options.seed)
        shared = trace.shared_tokens
    return SyntheticPrompts(texts, shapes, frames, notes, shared_tokens=shared)


def _sampled_shapes(options: WorkloadOptions, added: int) -> SampledShapes:
    shortest = added + options.shared_prefix_tokens + 1
    prompt = Lengths.parse(options.prompt_tokens or DEFAULT_PROMPT_TOKENS, "--prompt-tokens")
    if prompt.mean < shortest:
        raise InputError(
            "--prompt-tokens",
            f"{prompt.mean:g} tokens are too few for {added} of the template,"
            f" {options.shared_prefix_tokens} of the shared prefix and 1 of its own",
            f"ask for {shortest} or more",
        )
    prompt = Lengths(prompt.mean, prompt.std, shortest)
    output = Lengths.parse(options.output_tokens or DEFAULT_OUTPUT_TOKENS, "--output-tokens")
    longest = prompt.bounds[1] + output.bounds[1]
    if options.max_model_len is not None and longest > options.max_model_len:
        raise InputError(
            "--prompt-tokens",
            f"up to {prompt.bounds[1]} prompt and {output.bounds[1]} output tokens make {longest}, but"
            f" the server takes {options.max_model_len}",
            "ask for fewer of either or raise MAX_MODEL_LEN",
        )
    return SampledShapes(prompt, output)


def _frame(endpoint: Endpoint, tokenizer: Tokenizer | None, word: str) -> Frame:
    """Count the tokens that the server adds to a word of one token."""
    if tokenizer is None or not tokenizer.knows(endpoint):
        return Frame()
    (tokens,) = tokenizer.tokens(endpoint, [word])
    return Frame(head=tokenizer.head(endpoint), added=len(tokens) - 1, exact=True)


def _approximations(frames: Mapping[Endpoint, Frame], tokenizer: Tokenizer | None) -> list[str]:
    if tokenizer is None:
        return ["no --tokenizer: prompt lengths are approximate, one common English word a token"]
    return [
        f"{tokenizer.path} has no chat template beside it: the tokens of the server's template come on top"
        for frame in frames.values()
        if not frame.exact
    ]


def _lengthened(trace: Trace, frames: Mapping[Endpoint, Frame], shared: int) -> Iterator[str]:
    for endpoint, frame in frames.items():
        shortest = frame.added + shared + 1
        if short := trace.count_prompts_below(shortest):
            yield (
                f"{endpoint}: {short} of the trace's {len(trace)} prompts are shorter than template, shared"
                f" prefix and one word; they are lengthened to {shortest} tokens"
            )
