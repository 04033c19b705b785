"""Request bodies of the OpenAI endpoints under test."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from loadtest.workload.body_fields import apply_body

Endpoint = Literal["chat", "completions"]


class BodyTemplate:
    """JSON body of one endpoint with two gaps: the prompt's text and the number of tokens to generate.

    All else is the same for each request of a run, so it is serialised once.
    """

    def __init__(
        self, endpoint: Endpoint, model: str, *, stream: bool, ignore_eos: bool, extra: Mapping[str, Any]
    ) -> None:
        """Serialise the constant part.

        With greedy sampling (temperature 0) the same request is the same work. `ignore_eos` makes vLLM generate
        exactly the requested number of tokens; `min_tokens` does too, but adds a logits processor to every step.
        `extra` are the fields of --body.
        """
        fields: dict[str, Any] = {"model": model, "temperature": 0, "stream": stream}
        if stream:
            fields["stream_options"] = {"include_usage": True}
        if ignore_eos:
            fields["ignore_eos"] = True
        length = apply_body(fields, extra)
        opening = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))[:-1].encode()
        if endpoint == "chat":
            self._before = opening + b',"messages":[{"role":"user","content":"'
            self._after = b'"}]'
        else:
            self._before = opening + b',"prompt":"'
            self._after = b'"'
        self._length = f',"{length}":'.encode() if length else b""

    def body(self, text: bytes, output_tokens: int) -> bytes:
        """Return the body; `text` is the prompt, escaped for a JSON string, without its quotes."""
        if not self._length:
            return b"%b%b%b}" % (self._before, text, self._after)
        return b"%b%b%b%b%d}" % (self._before, text, self._after, self._length, output_tokens)
