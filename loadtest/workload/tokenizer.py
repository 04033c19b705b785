"""Token counts as the server will report them, from the model's own tokenizer files."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from random import Random
from typing import Any, Self

import jinja2
import tokenizers

from loadtest.workload.endpoints import Endpoint
from loadtest.workload.errors import InputError
from loadtest.workload.template import ChatTemplate

OPTION = "--tokenizer"

_MOST_WORDS = 4096  # enough that pairs of words tell 16 million prompts apart
_FEWEST_WORDS = 64
_WORD = re.compile(r"[\u0120\u2581]?([a-z]{3,12})")  # with the space marks of byte-level BPE and of SentencePiece
_BATCH = 2048
_RUN = 16


class Tokenizer:
    """Counts the tokens of prompts. All of it is slow next to a request: use it before a run, not in one."""

    def __init__(self, encoder: tokenizers.Tokenizer, template: ChatTemplate | None, path: Path) -> None:
        """Use `Tokenizer.read`."""
        encoder.no_truncation()
        encoder.no_padding()
        self._encoder = encoder
        self._template = template
        self.path = path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a model's `tokenizer.json`, or the folder that holds it.

        The chat template is taken from the same folder: `chat_template.jinja`, else the `chat_template` of
        `tokenizer_config.json`. Raises InputError.
        """
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise InputError(OPTION, f"no file {file}", "give the model's folder or its tokenizer.json")
        try:
            encoder = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # noqa: BLE001  # the library raises no narrower type
            raise InputError(OPTION, f"{file} is not a tokenizer: {error}", "use a model's tokenizer.json") from None
        return cls(encoder, _read_template(file.parent), file)

    def knows(self, endpoint: Endpoint) -> bool:
        """Tell whether counts for this endpoint include all that the server adds; chat needs a template."""
        return endpoint == "completions" or self._template is not None

    def tokens(self, endpoint: Endpoint | None, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids that the server will see for each prompt or user message.

        Completions get the special tokens of the tokenizer itself, such as a first BOS; chat gets them from
        its template, and without one is counted bare, as texts for no endpoint (None) are. Raises
        InputError where the template refuses a plain user message.
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
        """Return the number of tokens that stand before the text of every prompt of the endpoint."""
        one, other = self.tokens(endpoint, ["red", "blue"])
        return next(position for position, (a, b) in enumerate(zip_longest(one, other)) if a != b)

    def single_token_words(self) -> list[str]:
        """Return words that are one token each wherever they stand in a text of such words and single spaces.

        So the tokens of such a text are its words. The vocabulary proposes the words, common ones first;
        each is then tried at the start and inside a text, and all are tried beside others. Raises
        InputError if the tokenizer has too few.
        """
        proposals = self._proposals()
        words: list[str] = []
        while len(words) < _MOST_WORDS and (batch := list(islice(proposals, _BATCH))):
            words += self._single(batch)
        random = Random(0)  # noqa: S311  # any order that mixes neighbours
        for _ in range(2):
            random.shuffle(words)
            words = self._additive(words)
        if len(words) < _FEWEST_WORDS:
            raise InputError(
                OPTION,
                f"{self.path} has only {len(words)} plain words of one token, too few for exact prompts",
                "leave the option out to send prompts of approximate length",
            )
        return sorted(words[:_MOST_WORDS])

    def _proposals(self) -> Iterator[str]:
        by_id = sorted(self._encoder.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1])
        matches = (_WORD.fullmatch(token) for token, _ in by_id)
        return iter(dict.fromkeys(match[1] for match in matches if match))

    def _single(self, words: list[str]) -> list[str]:
        """Keep the words that are one token at the start of a text and one more after a space."""
        first = self._counts(words)
        twice = self._counts(f"{word} {word}" for word in words)
        return [word for word, one, two in zip(words, first, twice, strict=True) if (one, two) == (1, 2)]

    def _additive(self, words: list[str]) -> list[str]:
        """Keep the runs of words whose tokens are as many as their words."""
        runs = [words[start : start + _RUN] for start in range(0, len(words), _RUN)]
        counts = self._counts(" ".join(run) for run in runs)
        return [word for run, count in zip(runs, counts, strict=True) if count == len(run) for word in run]

    def _counts(self, texts: Iterable[str]) -> list[int]:
        return [len(ids) for ids in self.tokens(None, list(texts))]


def _read_template(folder: Path) -> ChatTemplate | None:
    config_file, template_file = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    try:
        config = json.loads(config_file.read_bytes()) if config_file.is_file() else {}
        named = template_file.read_text("utf-8") if template_file.is_file() else config.get("chat_template")
        if isinstance(named, list):  # several templates by name; servers use the one named default
            named = {entry["name"]: entry["template"] for entry in named}.get("default")
        return ChatTemplate(named, _special_tokens(config)) if named else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, jinja2.TemplateError) as error:
        raise InputError(
            OPTION,
            f"cannot read the chat template in {folder}: {error}",
            "use the model's own unchanged files",
        ) from None


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Return `bos_token` and its like; each is a string or an object with the string as its content."""
    tokens = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens
