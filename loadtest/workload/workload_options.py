"""Options of a workload."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from loadtest.input_error import InputError
from loadtest.workload.endpoints import Endpoint
from loadtest.workload.trace import TRACE_UNITS, TraceUnit

DEFAULT_PROMPT_TOKENS = "512"
DEFAULT_OUTPUT_TOKENS = "128"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadOptions:
    """Options of a workload; each field is the command-line option of the same name.

    `prompt_tokens` and `output_tokens` are `N` or `mean:std` in tokens; None is the default: 512 and 128, or the
    lengths of the dataset or trace. `max_model_len` is the longest sequence that the server takes, prompt and output
    together, in tokens; None if unknown, and then lengths are not checked against it. `chat_share` (0 to 1) is the
    share of requests to chat with endpoint `both`. `body` are fields of every request body; None removes one.

    Raises InputError for options that exclude each other.
    """

    model: str
    endpoint: Literal["chat", "completions", "both"] = "chat"
    chat_share: float = 0.5
    stream: bool = True
    prompt_tokens: str | None = None
    output_tokens: str | None = None
    shared_prefix_tokens: int = 0
    dataset: Path | None = None
    trace: Path | None = None
    trace_unit: TraceUnit = "auto"
    ignore_eos: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    tokenizer: Path | None = None
    max_model_len: int | None = None

    def __post_init__(self) -> None:
        """Raise InputError for invalid or contradictory options."""
        if not self.model:
            raise InputError("--model", "no model name", "give a name that /v1/models of the server lists")
        if self.endpoint not in {"chat", "completions", "both"}:
            raise InputError("--endpoint", f"'{self.endpoint}' is unknown", "use chat, completions or both")
        if self.shared_prefix_tokens < 0:
            raise InputError(
                "--shared-prefix-tokens", f"{self.shared_prefix_tokens} is negative", "give 0 or more tokens"
            )
        if self.dataset and self.trace:
            raise InputError("--dataset", "--trace is given too", "each says what is sent: give one of the two")
        if self.trace_unit not in TRACE_UNITS:
            raise InputError("--trace-unit", f"'{self.trace_unit}' is unknown", f"use {', '.join(TRACE_UNITS)}")
        source = "--dataset" if self.dataset else "--trace"
        if (self.dataset or self.trace) and self.prompt_tokens is not None:
            raise InputError("--prompt-tokens", f"{source} decides the prompts", "leave one of the two out")
        if self.trace and self.output_tokens is not None:
            raise InputError("--output-tokens", "--trace decides the lengths", "leave one of the two out")
        if self.dataset and self.shared_prefix_tokens:
            raise InputError("--shared-prefix-tokens", "--dataset is sent as it is", "leave one of the two out")

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Endpoints that requests are sent to."""
        return ("chat", "completions") if self.endpoint == "both" else (self.endpoint,)
