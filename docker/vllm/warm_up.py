"""Warm-up: one request of each kind before the engine counts as ready, so that no user waits for a kernel.

vLLM's own warm-up leaves out an eager engine with a fixed KV cache, as ours is on CPUs, and the official CPU image
compiles Triton kernels at the first request that needs them: each kind of sampling has kernels of its own, and a batch
or prompt of 1, of some, and of a multiple of 16 is compiled apart. Compiled kernels stay on the volume engine-cache.
"""

from __future__ import annotations

import time
import urllib.error
from typing import TYPE_CHECKING

import api_client
import state_files

if TYPE_CHECKING:
    import threading

# As compose.yaml's start_period: one step may have to compile dozens of kernels.
TIMEOUT_S = 1200.0
RETRY_S = 1.0
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
    """Ask until the engine has answered once, then for each kind; mark it as answered unless `closed` is set.

    A kind that this engine or model refuses is left out.
    """
    begun = time.monotonic()
    if not _first_answer(model, closed):
        return
    refused = []
    for number, (kind, fields) in enumerate(KINDS.items(), 1):
        state_files.WARMING_UP.write_text(f"warming up, request {number} of {len(KINDS)}: {kind}")
        try:
            body: dict[str, object] = {"model": model, "prompt": "Hi", "max_tokens": 3, **fields}
            api_client.request("/v1/completions", body, timeout_s=TIMEOUT_S)
        except urllib.error.HTTPError:
            refused.append(kind)
        except OSError:
            pass  # no answer: the watchdog decides, or the engine has just ended
        if closed.is_set():
            return
    left_out = f", not with {', '.join(refused)}, which it refused" if refused else ""
    print(f"headroom: warmed up in {time.monotonic() - begun:.1f} s{left_out}", flush=True)
    state_files.WARMING_UP.unlink(missing_ok=True)
    state_files.ANSWERED.touch()


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
