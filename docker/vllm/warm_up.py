"""Warm-up: one request of each kind before the engine counts as ready, so that no user waits for a kernel.

vLLM's own warm-up leaves out an eager engine with a fixed KV cache, as ours is on CPUs, and the official CPU image
compiles Triton kernels at the first request that needs them: each kind of sampling has kernels of its own, and a batch
or prompt of 1, of some, and of a multiple of 16 is compiled apart. Compiled kernels stay on the volume engine-cache.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import api_client
import state_files

if TYPE_CHECKING:
    import threading

# As compose.yaml's start_period: one step may have to compile dozens of kernels.
TIMEOUT_S = 1200.0
RETRY_S = 1.0
ALIVE_S = 10.0  # a busy engine answers late
# Fields of /v1/completions (vllm/entrypoints/openai/completion/protocol.py, 0.32).
KINDS: dict[str, dict[str, object]] = {
    "a greedy answer": {"temperature": 0},
    "a random answer": {"temperature": 1},
    "top_p, top_k and min_p": {"temperature": 1, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "seed": 1},
    "penalties": {"presence_penalty": 0.1, "frequency_penalty": 0.1, "repetition_penalty": 1.1},
    "log probabilities": {"logprobs": 2},
    "log probabilities of the prompt": {"prompt_logprobs": 1},
    "a bias": {"logit_bias": {"0": -1}, "min_tokens": 2},
    "JSON": {"response_format": {"type": "json_object"}},
    "a prompt of 16 tokens": {"prompt": [1] * 16},
    "a prompt of 33 tokens": {"prompt": [1] * 33},
    "2 answers at once": {"n": 2, "temperature": 1},
    "16 answers at once": {"n": 16, "temperature": 1},
}


def run(model: str, closed: threading.Event) -> None:
    """Ask until the engine has answered once, then for each kind; mark it as answered unless it or `closed` ends it.

    A kind that the engine or model refuses is left out, and so is one that has ended an engine of this container: it
    would never get ready.
    """
    begun = time.monotonic()
    fatal = state_files.ENDED_BY.read_text().splitlines() if state_files.ENDED_BY.exists() else []
    if not _first_answer(model, closed):
        return
    left_out = [f"{kind} (it ended the engine, and a client's would)" for kind in KINDS if kind in fatal]
    for number, (kind, fields) in enumerate(KINDS.items(), 1):
        if kind in fatal:
            continue
        state_files.WARMING_UP.write_text(f"warming up, request {number} of {len(KINDS)}: {kind}")
        trouble = _ask(model, fields)
        if closed.is_set():
            return
        if trouble and not _alive():
            state_files.ENDED_BY.write_text("".join(f"{one}\n" for one in (*fatal, kind)))
            return
        if trouble.startswith("HTTP Error 404"):
            break  # a model that makes no text, such as one that embeds
        if trouble:
            left_out.append(f"{kind} ({trouble})")
    without = f", without {', '.join(left_out)}" if left_out else ""
    print(f"headroom: warmed up in {time.monotonic() - begun:.1f} s{without}", flush=True)
    state_files.WARMING_UP.unlink(missing_ok=True)
    state_files.ANSWERED.touch()


def _ask(model: str, fields: dict[str, object]) -> str:
    """Request a few tokens; return the error, empty for none."""
    body: dict[str, object] = {"model": model, "prompt": "Hi", "max_tokens": 3, **fields}
    try:
        api_client.request("/v1/completions", body, timeout_s=TIMEOUT_S)
    except OSError as error:
        return str(error)
    return ""


def _alive() -> bool:
    """Return whether the engine still runs: vLLM's /health fails once its engine has ended."""
    try:
        api_client.request("/health", timeout_s=ALIVE_S)
    except OSError:
        return False
    return True


def _first_answer(model: str, closed: threading.Event) -> bool:
    """Ask for one token until it comes; return False when `closed` is set before."""
    state_files.WARMING_UP.write_text("warming up: asked for the first token")
    while not closed.is_set():
        try:
            api_client.ask_for_a_token(model, timeout_s=TIMEOUT_S)
        except OSError as error:
            state_files.WARMING_UP.write_text(f"asked for the first token: {error}")
            closed.wait(RETRY_S)
        else:
            return not closed.is_set()
    return False
