"""Recorded conversations from a ShareGPT file: the first question of each, with the length of its answer."""

import codecs
import json
import logging
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any, BinaryIO, NamedTuple

import ijson  # type: ignore[import-untyped]  # it ships no types
from ijson.common import ObjectBuilder  # type: ignore[import-untyped]  # as above

from loadtest.input_error import InputError
from loadtest.workload.draws import Draws, fraction
from loadtest.workload.endpoints import Endpoint
from loadtest.workload.lengths import Lengths
from loadtest.workload.prompts import Prompt
from loadtest.workload.tokenizer import Tokenizer
from loadtest.workload.workload_options import WorkloadOptions

OPTION = "--dataset"

_BATCH = 128  # conversations tokenised together
_BYTES_A_TOKEN = 4  # of English text, for current vocabularies; used without a tokenizer
_PROGRESS_S = 5.0
_DEEPEST = 64  # levels of JSON; a ShareGPT file has 5
_QUESTION = {"human", "user"}
_ANSWER = {"gpt", "assistant", "chatgpt", "bing", "bard"}

log = logging.getLogger(__name__)


class _Exchange(NamedTuple):
    """A question and its answer."""

    question: str
    answer: str


class DatasetPrompts:
    """Prompts of a dataset, unchanged, in an order that depends on the seed; they repeat after the last.

    Only the questions are kept, as JSON text, with the lengths of questions and answers.
    """

    def __init__(self, items: "_Items", output: Lengths | None, common_tokens: dict[Endpoint, int], seed: int) -> None:
        """Use `dataset_prompts`, which reads the file."""
        self._items = items
        self._output = output.sampler() if output else None
        self._order = array("I", range(len(items.texts)))
        Random(f"dataset:{seed}").shuffle(self._order)  # noqa: S311  # a repeatable order is the point
        self.common_tokens = common_tokens
        self.distinct = len(items.texts)
        self.notes = tuple(items.notes)

    def prompt(self, index: int, endpoint: Endpoint, draws: Draws) -> Prompt:
        """Return the prompt of request `index`."""
        item = self._order[index % len(self._order)]
        tokens = self._items.prompt_tokens.get(endpoint)
        output = self._output.sample(fraction(draws.output_length)) if self._output else self._items.outputs[item]
        return Prompt(self._items.texts[item], tokens[item] if tokens else None, output)


@dataclass(slots=True)
class _Items:
    """The kept part of the file: one entry per exchange in each sequence; `prompt_tokens` only if exact."""

    texts: list[bytes] = field(default_factory=list)
    prompt_tokens: dict[Endpoint, "array[int]"] = field(default_factory=dict)
    outputs: "array[int]" = field(default_factory=lambda: array("I"))
    notes: list[str] = field(default_factory=list)


def dataset_prompts(path: Path, options: WorkloadOptions, tokenizer: Tokenizer | None) -> DatasetPrompts:
    """Read a ShareGPT file: a JSON list of conversations, or one conversation per line.

    A conversation is `{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...},
    ...]}`. The first question followed by an answer is used; the output is as long as that answer unless
    the options give a length. Conversations without one, and those too long for the server, are left out and
    counted in the notes. Raises InputError, which names the conversation or the line.
    """
    output = Lengths.parse(options.output_tokens, "--output-tokens") if options.output_tokens else None
    exact = [endpoint for endpoint in options.endpoints if tokenizer and tokenizer.knows(endpoint)]
    items = _Items(prompt_tokens={endpoint: array("I") for endpoint in exact})
    unusable = too_long = 0
    exchanges = _exchanges(path)
    while batch := list(islice(exchanges, _BATCH)):
        found = [exchange for exchange in batch if exchange]
        unusable += len(batch) - len(found)
        questions = [exchange.question for exchange in found]
        prompts = {endpoint: _lengths(questions, tokenizer, endpoint) for endpoint in options.endpoints}
        answers = _lengths([exchange.answer for exchange in found], tokenizer, None)
        for position, question in enumerate(questions):
            longest = max(counts[position] for counts in prompts.values())
            longest += output.bounds[1] if output else answers[position]
            if options.max_model_len is not None and longest > options.max_model_len:
                too_long += 1
                continue
            items.texts.append(json.dumps(question)[1:-1].encode())
            items.outputs.append(answers[position])
            for endpoint in exact:
                items.prompt_tokens[endpoint].append(prompts[endpoint][position])
    if not items.texts:
        raise InputError(
            OPTION,
            f"{path} holds no usable conversation ({unusable} without a question and an answer, {too_long} too long)",
            "give ShareGPT conversations that fit the server's MAX_MODEL_LEN",
        )
    items.notes += _notes(unusable, too_long, options, exact)
    common = {endpoint: tokenizer.head(endpoint) if tokenizer else 0 for endpoint in options.endpoints}
    return DatasetPrompts(items, output, common, options.seed)


def _notes(unusable: int, too_long: int, options: WorkloadOptions, exact: list[Endpoint]) -> Iterator[str]:
    if unusable:
        yield f"{unusable} conversations have no question with an answer; left out"
    if too_long:
        yield f"{too_long} conversations exceed the server's {options.max_model_len} tokens; left out"
    for endpoint in options.endpoints:
        if endpoint not in exact:
            yield f"{endpoint}: prompt lengths are unknown before the run (no tokenizer, or no chat template)"
    if not options.tokenizer and not options.output_tokens:
        yield f"no --tokenizer: outputs are as long as the answers at {_BYTES_A_TOKEN} bytes a token"


def _lengths(texts: list[str], tokenizer: Tokenizer | None, endpoint: Endpoint | None) -> list[int]:
    """Return the token counts of an endpoint's prompts or (None) of bare texts."""
    if tokenizer is None:
        return [max(1, round(len(text.encode()) / _BYTES_A_TOKEN)) for text in texts]
    ids = tokenizer.tokens(endpoint, texts)
    return [len(tokens) for tokens in ids]


def _exchanges(path: Path) -> Iterator[_Exchange | None]:
    """Yield the exchange of each conversation, None if it has none."""
    for place, conversation in read_items(path):
        turns = conversation.get("conversations") if isinstance(conversation, dict) else None
        if not isinstance(turns, list):
            raise InputError(OPTION, f"{path}, {place}: no list 'conversations'", "give ShareGPT conversations")
        sides = [_turn(turn, path, place) for turn in turns]
        yield next(
            (
                _Exchange(question, answer)
                for (asker, question), (answerer, answer) in pairwise(sides)
                if asker in _QUESTION and answerer in _ANSWER and question and answer
            ),
            None,
        )


def _turn(turn: Any, path: Path, place: str) -> tuple[str, str]:
    if isinstance(turn, dict):
        who, text = turn.get("from"), turn.get("value")
        if isinstance(who, str) and isinstance(text, str):
            # half a surrogate pair, as in truncated texts, has no UTF-8 form
            return who, text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    raise InputError(OPTION, f"{path}, {place}: a turn has no 'from' and 'value' texts", "give ShareGPT conversations")


def read_items(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (place in the file, conversation), with one in memory at a time."""
    place = "line 1"
    try:
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
            file.seek(0)
            if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
                file.seek(0)
            progress = _Progress(path, file)
            if start == b"[":
                for number, conversation in enumerate(_items(file), 1):
                    place = f"conversation {number}"
                    progress.show(number)
                    yield place, conversation
                    place = f"after conversation {number}"
            else:
                for number, line in enumerate(file, 1):
                    place = f"line {number}"
                    progress.show(number)
                    if line.strip():
                        yield place, json.loads(line)
    except OSError as error:
        raise InputError(OPTION, f"cannot read {path}: {error.strerror}", "give a ShareGPT file") from None
    except (ijson.JSONError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).partition("\n")[0]
        raise InputError(
            OPTION, f"{path}, {place}: {reason}", "give a JSON list of conversations, or one a line"
        ) from None


def _items(file: BinaryIO) -> Iterator[Any]:
    """Yield the items of a JSON list, one at a time.

    `ijson.items` does the same but keeps the path to every level: 100 kB of brackets would take 20 GB.
    """
    depth = 0
    item = ObjectBuilder()
    for event, value in ijson.basic_parse(file, use_float=True):
        if event in {"start_map", "start_array"}:
            depth += 1
            if depth > _DEEPEST:
                raise ValueError(f"nested deeper than {_DEEPEST} levels")
            if depth == 1:
                continue
        elif event in {"end_map", "end_array"}:
            depth -= 1
            if depth == 0:
                return
        item.event(event, value)
        if depth == 1:
            yield item.value
            item = ObjectBuilder()


class _Progress:
    """Logs the progress of reading a file every few seconds."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size = path.stat().st_size
        self._started = self._shown = time.monotonic()

    def show(self, conversations: int) -> None:
        now = time.monotonic()
        if now - self._shown < _PROGRESS_S:
            return
        self._shown = now
        read = self._file.tell()
        log.info(
            "reading %s: %d conversations, %.0f of %.0f MB (%.0f %%), %.1f MB/s, %.0f s to go",
            self._path,
            conversations,
            read / 1e6,
            self._size / 1e6,
            100 * read / self._size,
            read / 1e6 / (now - self._started),
            (now - self._started) * (self._size - read) / read,
        )
