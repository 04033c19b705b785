"""Health check of the `vllm` service: healthy once a chat was answered, then as long as the engine is alive.

/health answers as soon as the engine has loaded; `docker compose up --wait` promises more, so the first success
asks for one token. The marker lives in the container's tmpfs: every start proves it again.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

SERVER = "http://127.0.0.1:8000"
ANSWERED = Path("/tmp/headroom-chat-answered")  # noqa: S108  # the container's own tmpfs
TIMEOUT_S = 10  # a busy engine answers late; less would call it dead


def request(path: str, body: dict[str, object] | None = None) -> None:
    """GET, or POST `body` as JSON; raises OSError unless the answer is a success."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("VLLM_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    data = json.dumps(body).encode() if body else None
    call = urllib.request.Request(SERVER + path, data=data, headers=headers)  # noqa: S310  # fixed http address
    with urllib.request.urlopen(call, timeout=TIMEOUT_S) as answer:  # noqa: S310  # as above
        answer.read()


def answer_once(model: str) -> None:
    """Ask for one token; raises OSError when none comes."""
    one_token = {"model": model, "max_tokens": 1}
    try:
        request("/v1/chat/completions", {**one_token, "messages": [{"role": "user", "content": "Hi"}]})
    except urllib.error.HTTPError as error:
        if error.code != 400:  # a base model has no chat template; it completes
            raise
        request("/v1/completions", {**one_token, "prompt": "Hi"})


def main() -> int:
    """Exit code of the health check."""
    try:
        request("/health")
        if not ANSWERED.exists():
            answer_once(os.environ.get("SERVED_MODEL_NAME") or os.environ["MODEL_ID"])
            ANSWERED.touch()
    except OSError as error:
        print(f"not healthy: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
