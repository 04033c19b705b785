"""transformers' side, with its best settings: `python3 -m speed_test.transformers_side WORK RESULT`.

Calls `generate` in batches: sorted by length for little padding, padded on the left, no end token to check for, no
filter on the logits, text decoded once per batch. The warm-up chooses the faster cache: dynamic, or static (on a GPU
compiled, with CUDA graphs).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from speed_test.side_result import SideResult, save
from speed_test.work import Request, Work

DTYPES = {"float32": torch.float32, "float16": torch.float16, "half": torch.float16, "bfloat16": torch.bfloat16}
PAD = 0  # any id: the attention mask excludes it


def batches(work: Work) -> list[list[Request]]:
    """All requests in batches of at most `max_batch_size`."""
    ordered = sorted(work.requests, key=lambda request: (request.output_len, len(request.prompt)), reverse=True)
    return [ordered[at : at + work.max_batch_size] for at in range(0, len(ordered), work.max_batch_size)]


class Side:
    """A loaded model; `cache` None is transformers' dynamic one."""

    def __init__(self, work: Work) -> None:
        torch.manual_seed(work.seed)
        config = transformers.AutoConfig.from_pretrained(work.model)
        dtype = DTYPES.get(work.dtype) or config.dtype or torch.float32
        self.device = "cuda" if work.device == "gpu" else "cpu"
        model: Any = transformers.AutoModelForCausalLM
        with torch.device(self.device):
            if work.load_format == "dummy":
                self.model = model.from_config(config, dtype=dtype)
            else:
                self.model = model.from_pretrained(work.model, dtype=dtype)
        self.model.eval().to(self.device)
        # Defaults for unset options of a call, such as end tokens and penalties.
        self.model.generation_config = transformers.GenerationConfig(pad_token_id=PAD)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(work.model)
        self.batches = batches(work)

    def once(self, cache: str | None) -> float:
        """Do the whole work once; return seconds."""
        self._wait()
        start = time.perf_counter()
        for batch in self.batches:
            width = max(len(request.prompt) for request in batch)
            ids = torch.tensor([[PAD] * (width - len(request.prompt)) + request.prompt for request in batch])
            mask = torch.tensor([[0] * (width - len(request.prompt)) + [1] * len(request.prompt) for request in batch])
            length = max(request.output_len for request in batch)
            config = transformers.GenerationConfig(
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                pad_token_id=PAD,
                max_new_tokens=length,
                use_cache=True,
                cache_implementation=cache,
            )
            with torch.inference_mode():
                made = self.model.generate(
                    ids.to(self.device), attention_mask=mask.to(self.device), generation_config=config
                )[:, width:].cpu()
            if made.shape != (len(batch), length):
                raise RuntimeError(
                    f"transformers made {tuple(made.shape)} tokens, {(len(batch), length)} were asked for"
                )
            # A batch runs until its longest request is done; surplus tokens of the others are dropped.
            self.tokenizer.batch_decode([row[: r.output_len] for row, r in zip(made, batch, strict=True)])
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def faster_cache(side: Side) -> tuple[str | None, str]:
    """The faster cache, each tried after a warm-up round, and a description of the trial."""
    took: dict[str | None, float] = {}
    trials = []
    for cache in (None, "static"):
        name = cache or "dynamic"
        try:
            first = side.once(cache)
            took[cache] = side.once(cache)
        except Exception as error:  # noqa: BLE001  # no compiler in the image, an architecture without a static cache, ...
            trials.append(f"{name} cache failed: {type(error).__name__}")
            print(f"throughput: hf {name} cache failed: {' '.join(str(error).split())[:300]}", flush=True)
        else:
            trials.append(f"{name} cache {took[cache]:.2f} s")
            print(f"throughput: hf warm-up, {name} cache: {first:.3f} s, then {took[cache]:.3f} s", flush=True)
    if not took:
        raise RuntimeError("transformers could not do the work with any cache; the lines above say why")
    best = min(took, key=lambda cache: took[cache])
    return best, f"{best or 'dynamic'} cache chosen ({', '.join(trials)})"


def run(work: Work) -> SideResult:
    """Load the model, choose the faster cache, measure."""
    side = Side(work)
    cache, choice = faster_cache(side)
    seconds = []
    for round_ in range(work.repeats):
        seconds.append(side.once(cache))
        print(f"throughput: hf repeat {round_ + 1}: {seconds[-1]:.3f} s", flush=True)
    attention = getattr(side.model.config, "_attn_implementation", "default")
    how = f"{choice}, {attention} attention, batches of up to {max(map(len, side.batches))}"
    return SideResult("hf", transformers.__version__, how, seconds)


if __name__ == "__main__":
    save(run(Work.load(Path(sys.argv[1]))), Path(sys.argv[2]))
