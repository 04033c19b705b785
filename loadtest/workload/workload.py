"""The requests of a run, each a pure function of (seed, index)."""

import json
from dataclasses import dataclass
from typing import Self

from loadtest.input_error import InputError
from loadtest.workload.body_fields import added_to_prompts, fixed_length
from loadtest.workload.dataset import dataset_prompts
from loadtest.workload.draws import DrawSource, fraction
from loadtest.workload.endpoints import BodyTemplate, Endpoint
from loadtest.workload.prompts import Prompts
from loadtest.workload.request_bodies import RequestBodies, holds_request_bodies, read_request_bodies
from loadtest.workload.synthetic import synthetic_prompts
from loadtest.workload.tokenizer import Tokenizer
from loadtest.workload.trace import Trace
from loadtest.workload.workload_options import WorkloadOptions

_CHECKED = 16  # requests whose tokens are counted again before a run


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """One request, ready to send.

    `prompt_tokens` is the expected `usage.prompt_tokens` of the server, None if not known exactly. `output_tokens` is
    the request's `max_tokens`.
    """

    index: int
    endpoint: Endpoint
    body: bytes
    prompt_tokens: int | None
    output_tokens: int


class Workload:
    """Makes request `index` for any index, in any order: of n workers, worker k makes k, k+n, k+2n, ... on its own."""

    def __init__(self, options: WorkloadOptions, prompts: Prompts | RequestBodies, trace: Trace | None) -> None:
        """Use `Workload.load`, which prepares the prompts."""
        self.options = options
        self.trace = trace
        self._prompts = prompts
        self._changes_prompts = added_to_prompts(options.body)
        self._fixed_length = fixed_length(options.body)
        self._draws = DrawSource(options.seed)
        self._chat_share = {"chat": 1.0, "completions": 0.0, "both": options.chat_share}[options.endpoint]
        self._bodies = {
            endpoint: BodyTemplate(
                endpoint, options.model, stream=options.stream, ignore_eos=options.ignore_eos, extra=options.body
            )
            for endpoint in options.endpoints
        }

    @classmethod
    def load(cls, options: WorkloadOptions) -> Self:
        """Prepare the workload: read the files and count the tokens, which is slow.

        Raises InputError for a file or an option that cannot be used.
        """
        tokenizer = Tokenizer.read(options.tokenizer) if options.tokenizer else None
        trace = Trace.read(options.trace, options.trace_unit) if options.trace else None
        prompts: Prompts | RequestBodies
        if options.dataset and holds_request_bodies(options.dataset):
            prompts = read_request_bodies(options.dataset, options)
        elif options.dataset:
            prompts = dataset_prompts(options.dataset, options, tokenizer)
        else:
            prompts = synthetic_prompts(options, tokenizer, trace)
        workload = cls(options, prompts, trace)
        if tokenizer:
            workload._check(tokenizer)
        return workload

    def request(self, index: int) -> RequestSpec:
        """Return request `index` (0 and up); takes microseconds. The same options give the same bytes."""
        draws = self._draws.at(index)
        endpoint: Endpoint = "chat" if fraction(draws.endpoint) < self._chat_share else "completions"
        if isinstance(self._prompts, RequestBodies):
            endpoint, body, output_tokens = self._prompts.request(index, draws)
            return RequestSpec(index, endpoint, body, None, output_tokens)
        text, prompt_tokens, output_tokens = self._prompts.prompt(index, endpoint, draws)
        if self._changes_prompts:
            prompt_tokens = None
        body = self._bodies[endpoint].body(text, output_tokens)
        return RequestSpec(index, endpoint, body, prompt_tokens, self._fixed_length or output_tokens)

    def lengths(self, most: int) -> list[tuple[int, int]] | None:
        """Return (prompt tokens, output tokens) of up to `most` requests; None if one of them is up to the server."""
        if not self.options.ignore_eos:
            return None
        specs = [self.request(index) for index in range(min(most, self.distinct or most))]
        lengths = [(spec.prompt_tokens, spec.output_tokens) for spec in specs if spec.prompt_tokens is not None]
        return lengths if len(lengths) == len(specs) else None

    @property
    def common_tokens(self) -> dict[Endpoint, int]:
        """Tokens at the start of every prompt of an endpoint: the chat template's head and the shared prefix.

        Even a cold engine finds these in its prefix cache, in whole blocks; more hits are not intended.
        """
        return {endpoint: tokens + self._changes_prompts for endpoint, tokens in self._prompts.common_tokens.items()}

    @property
    def distinct(self) -> int | None:
        """Number of requests after which prompts repeat; None if they never do."""
        return self._prompts.distinct

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the workload for the report, one line each; often empty."""
        if not self._changes_prompts:
            return self._prompts.notes
        return (*self._prompts.notes, "--body changes the prompts: their lengths are unknown before the run")

    def _check(self, tokenizer: Tokenizer) -> None:
        """Count the tokens of the first requests' bodies. Raises InputError if they differ from `prompt_tokens`."""
        if isinstance(self._prompts, RequestBodies):
            return
        for spec in map(self.request, range(_CHECKED)):
            body = json.loads(spec.body)
            text = body["messages"][0]["content"] if spec.endpoint == "chat" else body["prompt"]
            (tokens,) = tokenizer.tokens(spec.endpoint, [text])
            if spec.prompt_tokens not in {None, len(tokens)}:
                raise InputError(
                    "--tokenizer",
                    f"{spec.endpoint} prompts do not keep their length: {len(tokens)} tokens, not {spec.prompt_tokens}",
                    "leave the option out to send prompts of approximate length",
                )
