"""What a person can ask for, as one value."""

from dataclasses import dataclass
from typing import Literal

DEFAULT_PROMPT_TOKENS = "512"
DEFAULT_OUTPUT_TOKENS = "128"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadOptions:
    """The options of a workload; each field is the command-line option of the same name.

    `prompt_tokens` and `output_tokens` are `N` or `mean:std` in tokens; None stands for the default.
    `max_model_len` is the longest sequence that the server takes, prompt and output together, in tokens;
    None where it is not known.
    """

    model: str
    endpoint: Literal["chat", "completions", "both"] = "chat"
    stream: bool = True
    prompt_tokens: str | None = None
    output_tokens: str | None = None
    shared_prefix_tokens: int = 0
    ignore_eos: bool = False
    seed: int = 0
    max_model_len: int | None = None
