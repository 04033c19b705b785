"""What every source of prompts gives: a text and two lengths for any index."""

from typing import NamedTuple, Protocol

from loadtest.workload.draws import Draws
from loadtest.workload.endpoints import Endpoint


class Prompt(NamedTuple):
    """A prompt, as it stands between the quotes of a JSON string, and its lengths in tokens.

    `prompt_tokens` counts what the server adds too, such as the chat template; None where it is not known
    exactly.
    """

    text: bytes
    prompt_tokens: int | None
    output_tokens: int


class Prompts(Protocol):
    """A source of prompts. Its methods are pure: the same arguments give the same prompt in every worker."""

    @property
    def common_tokens(self) -> dict[Endpoint, int]:
        """The tokens at the start of a prompt that all prompts of the endpoint have in common by intent."""

    @property
    def distinct(self) -> int | None:
        """The number of requests after which prompts repeat; None if they never do."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know about the prompts, one line each."""

    def prompt(self, index: int, endpoint: Endpoint, draws: Draws) -> Prompt:
        """Return the prompt of request `index`, whose draws are given."""
