"""Token counts as the server reports them, from the model's own tokenizer files."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice, zip_longest
from pathlib import Path
from statistics import mode
from typing import Any, Self

import jinja2
import tokenizers

from loadtest.input_error import InputError
from loadtest.workload.endpoints import Endpoint
from loadtest.workload.template import ChatTemplate

OPTION = "--tokenizer"

_MOST_WORDS = 4096  # pairs of these make 16 million prompts distinct
_FEWEST_WORDS = 64
_MARKS = "\u0120\u2581 "  # a space in byte-level BPE, SentencePiece and plain vocabularies
_WORD = re.compile(rf"[{_MARKS}]?([a-z]{{3,12}})")
_SPANNING = re.compile(rf"([a-z]+)[{_MARKS}]")
_BATCH = 2048


class Tokenizer:
    """Counts the tokens of prompts. Slow compared with a request: for use before a run."""

    def __init__(self, encoder: tokenizers.Tokenizer, template: ChatTemplate | None, path: Path) -> None:
        """Use `Tokenizer.read`."""
        self._encoder = encoder
        self._template = template
        self.path = path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a model's `tokenizer.json`, or the folder that holds it.

        The chat template is read from the same folder: `chat_template.jinja`, else the `chat_template` of
        `tokenizer_config.json`. Raises InputError.
        """
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise InputError(OPTION, f"no file {file}", "give the model's folder or its tokenizer.json")
        try:
            stat = file.stat()
            encoder = _read_encoder(file, (stat.st_ino, stat.st_mtime_ns, stat.st_size))
        except Exception as error:  # noqa: BLE001  # the library raises no narrower type
            raise InputError(OPTION, f"{file} is not a tokenizer: {error}", "use a model's tokenizer.json") from None
        return cls(encoder, _read_template(file.parent), file)

    def knows(self, endpoint: Endpoint) -> bool:
        """Return whether counts for this endpoint include all tokens that the server adds; chat needs a template."""
        return endpoint == "completions" or self._template is not None

    def tokens(self, endpoint: Endpoint | None, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids that the server computes for each prompt or user message.

        Completions get the tokenizer's special tokens, such as a first BOS; chat gets them from its template. Chat
        without a template, and texts for no endpoint (None), are counted without any. Raises InputError if the
        template refuses a plain user message.
        """
        if endpoint == "chat" and self._template is not None:
            try:
                texts = [self._template.render(text) for text in texts]
            except jinja2.TemplateError as error:
                raise InputError(
                    OPTION,
                    f"the chat template beside {self.path} refuses a user message: {error}",
                    "correct the template or test --endpoint completions",
                ) from None
        encodings = self._encoder.encode_batch(texts, add_special_tokens=endpoint == "completions")
        return [encoding.ids for encoding in encodings]

    def head(self, endpoint: Endpoint) -> int:
        """Return the number of tokens before the text of every prompt of the endpoint."""
        one, other = self.tokens(endpoint, ["red", "blue"])
        return next(position for position, (a, b) in enumerate(zip_longest(one, other)) if a != b)

    def single_token_words(self, endpoints: Sequence[Endpoint]) -> list[str]:
        """Return words of one token each at any place in a text of such words and single spaces.

        A prompt of n such words has n tokens more than the server adds to every prompt. Candidates come from the
        vocabulary, common ones first, without words that a token spanning a space could join to the next word. Each
        candidate is tried at the start of a text, after a space, and between the texts that the endpoints put around a
        prompt. Raises InputError if the tokenizer has too few.
        """
        candidates = self._candidates()
        words: list[str] = []
        while len(words) < _MOST_WORDS and (batch := list(islice(candidates, _BATCH))):
            words += self._single(batch)
        for endpoint in endpoints:
            words = self._framed(endpoint, words)
        if len(words) < _FEWEST_WORDS:
            raise InputError(
                OPTION,
                f"{self.path} has only {len(words)} plain words of one token, too few for exact prompts",
                "leave the option out to send prompts of approximate length",
            )
        return sorted(words[:_MOST_WORDS])

    def _candidates(self) -> Iterator[str]:
        vocabulary = self._encoder.get_vocab(with_added_tokens=False)
        spanning = tuple({match[1] for token in vocabulary for match in _SPANNING.finditer(token)})
        matches = map(_WORD.fullmatch, sorted(vocabulary, key=vocabulary.__getitem__))
        words = dict.fromkeys(match[1] for match in matches if match)
        return (word for word in words if not word.endswith(spanning))

    def _single(self, words: list[str]) -> list[str]:
        """Return the words that are one token at the start of a text and one more after a space."""
        first = map(len, self.tokens(None, words))
        twice = map(len, self.tokens(None, [f"{word} {word}" for word in words]))
        return [word for word, one, two in zip(words, first, twice, strict=True) if (one, two) == (1, 2)]

    def _framed(self, endpoint: Endpoint, words: list[str]) -> list[str]:
        """Return the words that make prompts of the usual length; others merge with the text around them."""
        counts = list(map(len, self.tokens(endpoint, words)))
        usual = mode(counts) if counts else 0
        return [word for word, count in zip(words, counts, strict=True) if count == usual]


# Each run of a Locust process reads the same file again, and tokenizers 0.23 never frees a deleted tokenizer's cache of
# merges: 7 MB each, measured with a vocabulary of 49,152.
@lru_cache(maxsize=4)
def _read_encoder(file: Path, _version: tuple[int, ...]) -> tokenizers.Tokenizer:
    """Read `file` once per version of it."""
    encoder = tokenizers.Tokenizer.from_file(str(file))
    encoder.no_truncation()
    encoder.no_padding()
    return encoder


def _read_template(folder: Path) -> ChatTemplate | None:
    config_file, template_file = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    try:
        config = json.loads(config_file.read_bytes()) if config_file.is_file() else {}
        named = template_file.read_text("utf-8") if template_file.is_file() else config.get("chat_template")
        if isinstance(named, list):  # several templates by name; servers use the one named default
            named = {entry["name"]: entry["template"] for entry in named}.get("default")
        return ChatTemplate(named, _special_tokens(config)) if named else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError, jinja2.TemplateError) as error:
        raise InputError(
            OPTION,
            f"cannot read the chat template in {folder}: {error}",
            "use the model's own unchanged files",
        ) from None


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Return `bos_token` and the other special tokens; each is a string, or an object with the string as `content`."""
    tokens = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens
