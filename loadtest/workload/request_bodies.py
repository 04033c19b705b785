"""Whole request bodies from a file: one JSON object a line, as they are sent, or as OpenAI's batches have them."""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from loadtest.input_error import InputError
from loadtest.workload.body_fields import LENGTH, NEWER_LENGTH, apply_body, fixed_length
from loadtest.workload.dataset import OPTION, read_items
from loadtest.workload.draws import Draws, fraction
from loadtest.workload.endpoints import Endpoint
from loadtest.workload.lengths import Lengths
from loadtest.workload.workload_options import DEFAULT_OUTPUT_TOKENS, WorkloadOptions

_PATHS: dict[str, Endpoint] = {"/chat/completions": "chat", "/completions": "completions"}
_FIX = "give request bodies with messages or prompt, or OpenAI batch lines with url and body"


def holds_request_bodies(path: Path) -> bool:
    """Return whether the first item of a dataset is a request body. Raises InputError."""
    for _, item in read_items(path):
        return isinstance(item, dict) and "conversations" not in item and bool({"body", "messages", "prompt"} & {*item})
    return False


@dataclass(slots=True)
class _Bodies:
    """Bodies without their end, and what goes there; one entry a body in each."""

    endpoints: list[Endpoint] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    length_names: list[bytes] = field(default_factory=list)  # empty: no length is sent
    lengths: "array[int]" = field(default_factory=lambda: array("I"))  # tokens to generate; 0: the server decides


class RequestBodies:
    """The bodies of a dataset with everything in them, in an order decided by the seed; they repeat after the last.

    The model and `stream` are the run's; --output-tokens, --ignore-eos and --body change them too.
    """

    def __init__(self, bodies: _Bodies, output: Lengths | None, common: int, seed: int, notes: list[str]) -> None:
        """Use `read_request_bodies`."""
        self._bodies = bodies
        self._output = output.sampler() if output else None
        self._order = array("I", range(len(bodies.texts)))
        Random(f"dataset:{seed}").shuffle(self._order)  # noqa: S311  # a repeatable order is the point
        self.common_tokens: dict[Endpoint, int] = dict.fromkeys(bodies.endpoints, common)
        self.distinct = len(bodies.texts)
        self.notes = tuple(notes)

    def request(self, index: int, draws: Draws) -> tuple[Endpoint, bytes, int]:
        """Return the endpoint and body of request `index`, and the most tokens to generate (128 if nobody says)."""
        item, bodies = self._order[index % len(self._order)], self._bodies
        length = bodies.lengths[item]
        if self._output:
            length = self._output.sample(fraction(draws.output_length))
        name, text = bodies.length_names[item], bodies.texts[item]
        body = b'%b,"%b":%d}' % (text, name, length) if name and length else text + b"}"
        return bodies.endpoints[item], body, length or int(DEFAULT_OUTPUT_TOKENS)


def read_request_bodies(path: Path, options: WorkloadOptions) -> RequestBodies:
    """Read all bodies; those of an endpoint that is not tested are left out and counted. Raises InputError."""
    output = Lengths.parse(options.output_tokens, "--output-tokens") if options.output_tokens else None
    bodies = _Bodies()
    others = longest = 0
    for place, item in read_items(path):
        endpoint, fields = _request(item, path, place)
        if endpoint not in options.endpoints:
            others += 1
            continue
        name, length = _settle(fields, options)
        text = json.dumps(fields, separators=(",", ":"))[:-1].encode()
        longest = max(longest, len(text))
        bodies.endpoints.append(endpoint)
        bodies.texts.append(text)
        bodies.length_names.append(name.encode())
        bodies.lengths.append(length)
    if not bodies.texts:
        raise InputError(OPTION, f"{path} holds no request for --endpoint {options.endpoint}", _FIX)
    # What requests have in common, such as a system prompt or tools, is theirs: no hit of the prefix cache is too many.
    return RequestBodies(bodies, output, longest, options.seed, list(_notes(bodies, others, options)))


def _notes(bodies: _Bodies, others: int, options: WorkloadOptions) -> Iterator[str]:
    yield "whole request bodies: prompt lengths are unknown before the run"
    if others:
        yield f"{others} requests are for another endpoint than {options.endpoint}; left out"
    if not options.output_tokens and (unlimited := bodies.lengths.count(0)):
        yield f"{unlimited} requests give no length of the answer: the server decides it"


def _request(item: Any, path: Path, place: str) -> tuple[Endpoint, dict[str, Any]]:
    body, url = item, None
    if isinstance(item, dict) and "body" in item:
        body, url = item["body"], item.get("url")
    if not isinstance(body, dict):
        raise InputError(OPTION, f"{path}, {place}: no object", _FIX)
    endpoint: Endpoint | None = "chat" if "messages" in body else "completions" if "prompt" in body else None
    if url is not None:
        endpoint = next((known for end, known in _PATHS.items() if str(url).endswith(end)), None)
        if endpoint is None:
            raise InputError(OPTION, f"{path}, {place}: requests to {str(url)[:60]!r} are not tested", _FIX)
    if endpoint is None or ("messages" if endpoint == "chat" else "prompt") not in body:
        raise InputError(OPTION, f"{path}, {place}: neither messages nor prompt", _FIX)
    return endpoint, dict(body)


def _settle(fields: dict[str, Any], options: WorkloadOptions) -> tuple[str, int]:
    """Put in what the run decides; take out the length, and return its name ("" to send none) and tokens (0: none)."""
    given = next((name for name in (NEWER_LENGTH, LENGTH) if _is_length(fields.get(name))), "")
    length = fields[given] if given else 0
    for name in (NEWER_LENGTH, LENGTH):
        fields.pop(name, None)
    fields |= {"model": options.model, "stream": options.stream}
    if options.stream:
        asked = fields.get("stream_options")
        fields["stream_options"] = {**(asked if isinstance(asked, dict) else {}), "include_usage": True}
    else:
        fields.pop("stream_options", None)
    if options.ignore_eos:
        fields["ignore_eos"] = True
    name = apply_body(fields, options.body)
    if fixed := fixed_length(options.body):
        return "", fixed
    return (given or name if name == LENGTH else name), length


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 32
