"""Work of both sides: the same prompts as token ids, the same number of output tokens."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path


class WorkError(Exception):
    """A dataset or a length that cannot work; the message is one line."""


@dataclass(frozen=True)
class Request:
    """One prompt, and the exact number of output tokens."""

    prompt: list[int]
    output_len: int

    @property
    def tokens(self) -> int:
        """Prompt and output tokens."""
        return len(self.prompt) + self.output_len


@dataclass(frozen=True)
class Work:
    """Work and settings of a side. `engine_flags` are for vLLM, `max_batch_size` for transformers."""

    model: str
    device: str
    dtype: str
    load_format: str
    quantization: str | None
    seed: int
    repeats: int
    max_batch_size: int
    engine_flags: list[str]
    requests: list[Request]

    @property
    def output_tokens(self) -> int:
        """Output tokens of all requests."""
        return sum(request.output_len for request in self.requests)

    @property
    def total_tokens(self) -> int:
        """Prompt and output tokens of all requests."""
        return sum(request.tokens for request in self.requests)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        fields: dict[str, Any] = json.loads(path.read_text())
        fields["requests"] = [Request(**request) for request in fields["requests"]]
        return cls(**fields)


def random_requests(count: int, input_len: int, output_len: int, tokens: list[int], seed: int) -> list[Request]:
    """Prompts of `input_len` ids drawn from `tokens`; ids, because text encodes to other lengths."""
    draw = random.Random(seed)  # noqa: S311  # a workload that must repeat, no secret
    return [Request(draw.choices(tokens, k=input_len), output_len) for _ in range(count)]


def dataset_requests(  # noqa: PLR0913, PLR0917  # a file, and all that picks from it
    path: Path, count: int, lengths: tuple[int | None, int | None], tokenizer: Any, most: int, seed: int
) -> list[Request]:
    """Requests from the first two turns of `count` conversations of a ShareGPT file, in seeded order.

    `lengths` truncate prompts and replace the answers' lengths. Conversations of more than `most` tokens, or parts
    shorter than four, are skipped, like in vLLM's benchmark. Raises WorkError.
    """
    try:
        rows = json.loads(path.read_text())
        turns = [[turn["value"] for turn in row["conversations"][:2]] for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WorkError(
            f"--dataset {path} cannot be used ({error!r}): it must be a ShareGPT file, "
            '[{"conversations": [{"value": "..."}, {"value": "..."}]}, ...]'
        ) from None
    random.Random(seed).shuffle(turns)  # noqa: S311  # as above
    input_len, output_len = lengths
    found: list[Request] = []
    for turn in turns:
        if len(found) == count or len(turn) < 2:
            continue
        prompt = tokenizer(turn[0]).input_ids[:input_len]
        made = output_len or len(tokenizer(turn[1]).input_ids)
        if len(prompt) >= 4 <= made and len(prompt) + made <= most:
            found.append(Request(prompt, made))
    if len(found) < count:
        raise WorkError(f"--dataset {path} has {len(found)} conversations that fit, not --num-prompts {count}")
    return found
