"""The requests of a run, each a pure function of (seed, index)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from loadtest.workload.draws import DrawSource, fraction
from loadtest.workload.endpoints import BodyTemplate, Endpoint
from loadtest.workload.english import COMMON_WORDS
from loadtest.workload.lengths import Lengths
from loadtest.workload.options import DEFAULT_OUTPUT_TOKENS, DEFAULT_PROMPT_TOKENS, WorkloadOptions
from loadtest.workload.words import PromptTexts


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """One request, ready to send.

    `prompt_tokens` is what the server's `usage.prompt_tokens` will say, or None where that is not known
    exactly. `output_tokens` is the `max_tokens` of the request.
    """

    index: int
    endpoint: Endpoint
    body: bytes
    prompt_tokens: int | None
    output_tokens: int


class Workload:
    """Makes request `index` for any index, in any order: workers take k, k+n, k+2n, ... and share nothing."""

    def __init__(
        self,
        *,
        draws: DrawSource,
        bodies: Mapping[Endpoint, BodyTemplate],
        texts: PromptTexts,
        prompt: Lengths,
        output: Lengths,
    ) -> None:
        """Use `Workload.load`, which checks the options."""
        self._draws = draws
        self._bodies = bodies
        self._endpoints = tuple(bodies)
        self._texts = texts
        self._prompt = prompt.sampler()
        self._output = output.sampler()

    @classmethod
    def load(cls, options: WorkloadOptions) -> Self:
        """Prepare the workload: all that is slow happens here. Raises InputError for bad options."""
        endpoints: tuple[Endpoint, ...] = ("chat", "completions") if options.endpoint == "both" else (options.endpoint,)
        shortest = options.shared_prefix_tokens + 1
        return cls(
            draws=DrawSource(options.seed),
            bodies={
                endpoint: BodyTemplate(endpoint, options.model, stream=options.stream, ignore_eos=options.ignore_eos)
                for endpoint in endpoints
            },
            texts=PromptTexts(COMMON_WORDS, seed=options.seed, shared_words=options.shared_prefix_tokens),
            prompt=Lengths.parse(options.prompt_tokens or DEFAULT_PROMPT_TOKENS, "--prompt-tokens", shortest=shortest),
            output=Lengths.parse(options.output_tokens or DEFAULT_OUTPUT_TOKENS, "--output-tokens"),
        )

    def request(self, index: int) -> RequestSpec:
        """Return request `index` (0 and up). The same seed and options give the same bytes."""
        draws = self._draws.at(index)
        endpoint = self._endpoints[draws.endpoint % len(self._endpoints)]
        length = self._prompt.sample(fraction(draws.prompt_length))
        output_tokens = self._output.sample(fraction(draws.output_length))
        text = self._texts.text(index, length, draws.opening, draws.position)
        return RequestSpec(
            index=index,
            endpoint=endpoint,
            body=self._bodies[endpoint].body(text, output_tokens),
            prompt_tokens=None,
            output_tokens=output_tokens,
        )
