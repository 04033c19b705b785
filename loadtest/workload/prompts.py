"""Interface of prompt sources: a text and two lengths for any request index."""

from typing import NamedTuple, Protocol

from loadtest.workload.draws import Draws
from loadtest.workload.endpoints import Endpoint


class Prompt(NamedTuple):
    """A prompt, escaped for a JSON string without its quotes, and its lengths in tokens.

    `prompt_tokens` includes tokens that the server adds, such as the chat template; None if not known exactly.
    """

    text: bytes
    prompt_tokens: int | None
    output_tokens: int


class Prompts(Protocol):
    """Source of prompts. Its methods are pure: the same arguments give the same prompt in every worker."""

    @property
    def common_tokens(self) -> dict[Endpoint, int]:
        """Number of tokens at the start of every prompt of an endpoint, by intent."""

    @property
    def distinct(self) -> int | None:
        """Number of requests after which prompts repeat; None if they never do."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the prompts for the report, one line each."""

    def prompt(self, index: int, endpoint: Endpoint, draws: Draws) -> Prompt:
        """Return the prompt of request `index`, with the draws of that index."""
