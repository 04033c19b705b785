"""Request bodies of the OpenAI endpoints under test."""

import json
from typing import Literal

Endpoint = Literal["chat", "completions"]


class BodyTemplate:
    """JSON body of one endpoint with two gaps: the prompt's text and the number of tokens to generate.

    All else is the same for each request of a run, so it is serialised once.
    """

    def __init__(self, endpoint: Endpoint, model: str, *, stream: bool, ignore_eos: bool) -> None:
        """Serialise the constant part.

        With greedy sampling (temperature 0) the same request is the same work. `ignore_eos` makes vLLM generate
        exactly the requested number of tokens; `min_tokens` does too, but adds a logits processor to every step.
        """
        fields: dict[str, object] = {"model": model, "temperature": 0, "stream": stream}
        if stream:
            fields["stream_options"] = {"include_usage": True}
        if ignore_eos:
            fields["ignore_eos"] = True
        opening = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))[:-1].encode()
        if endpoint == "chat":
            self._before = opening + b',"messages":[{"role":"user","content":"'
            self._between = b'"}],"max_tokens":'
        else:
            self._before = opening + b',"prompt":"'
            self._between = b'","max_tokens":'

    def body(self, text: bytes, output_tokens: int) -> bytes:
        """Return the body; `text` is the prompt, escaped for a JSON string, without its quotes."""
        return b"%b%b%b%d}" % (self._before, text, self._between, output_tokens)
