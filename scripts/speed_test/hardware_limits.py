"""Limits of this hardware for the work (time_floors.py): `python3 -m speed_test.hardware_limits WORK RESULT`.

Measures bandwidth, the better of a copy (bytes read plus written) and a read, and the rate of a matrix product in the
tested dtype.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from speed_test.time_floors import ModelShape, floors
from speed_test.transformers_side import DTYPES
from speed_test.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable

FP8_BYTES = 1  # of linear layers only: vLLM does not quantize the output layer
TRIALS = 20


@dataclass(frozen=True)
class HardwareLimits:
    """Measured rates, and the two floors in seconds for the whole work.

    No floors for a mixture of experts, where a step reads an unknown part; no floor of operations for fp8, whose rate
    is not measured.
    """

    device: str
    bandwidth_bytes_per_s: float
    operations_per_s: float
    bytes_floor_s: float | None
    operations_floor_s: float | None


def shape(work: Work) -> ModelShape | None:
    """Sizes of the model, built on torch's meta device; None for a mixture of experts."""
    config = transformers.AutoConfig.from_pretrained(work.model)
    if any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return None
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    total = sum(weight.numel() for weight in model.parameters())
    head = model.get_output_embeddings().weight.numel()
    tied = bool(config.tie_word_embeddings)
    body = total - head if tied else total - head - model.get_input_embeddings().weight.numel()
    wide = (DTYPES.get(work.dtype) or config.dtype or torch.float32).itemsize
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    body_wide = FP8_BYTES if work.quantization == "fp8" else wide
    return ModelShape(body, head, body * body_wide, head * wide, 2 * config.num_hidden_layers * heads * size * wide)


def best_s(action: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of several runs: other load only slows them down."""
    times = []
    for _ in range(TRIALS):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[2:])  # the first ones include loading


def bandwidth(device: str) -> float:
    """Bytes per second of the device's memory, over buffers larger than any cache."""
    size = 8 * 2**30 if device == "cuda" else 2**30
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    copied = 2 * size / best_s(lambda: target.copy_(source), device)
    read = size / best_s(lambda: torch.sum(source), device)
    return max(copied, read)


def operations(device: str, dtype: torch.dtype) -> float:
    """Operations per second of a square matrix product of random numbers."""
    side = 8192 if device == "cuda" else 2048
    left = torch.randn(side, side, device=device).to(dtype)
    right = torch.randn(side, side, device=device).to(dtype)
    return 2.0 * side**3 / best_s(lambda: left @ right, device)


def _name(device: str) -> str:
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")
    return f"{model}, {torch.get_num_threads()} threads"


def run(work: Work) -> HardwareLimits:
    """Measure the hardware and compute the floors."""
    device = "cuda" if work.device == "gpu" else "cpu"
    dtype = DTYPES.get(work.dtype) or transformers.AutoConfig.from_pretrained(work.model).dtype or torch.float32
    moved, done = bandwidth(device), operations(device, dtype)
    model = shape(work)
    if model is None:
        return HardwareLimits(_name(device), moved, done, None, None)
    bytes_s, operations_s = floors(work, model, moved, done)
    return HardwareLimits(_name(device), moved, done, bytes_s, None if work.quantization else operations_s)


if __name__ == "__main__":
    limits = run(Work.load(Path(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(asdict(limits)))
