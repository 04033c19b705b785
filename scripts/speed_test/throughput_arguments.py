"""Command line of `throughput`; names and defaults are those of an earlier speed test."""

from __future__ import annotations

import argparse
from pathlib import Path

BACKENDS = ("vllm", "hf")


def count(text: str) -> int:
    """Parse a whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    args = argparse.ArgumentParser(prog="throughput", description="The speed test: vLLM against transformers.")
    add = args.add_argument
    add("--model", metavar="ID", help="on the models volume, or a folder; default: MODEL_ID")
    add("--backend", choices=(*BACKENDS, "both"), default="vllm", help="default: %(default)s")
    add("--input-len", type=count, metavar="N", help="tokens of a prompt; default: 64, or the dataset's own")
    add("--output-len", type=count, metavar="N", help="tokens of an answer; default: 128, or the dataset's own")
    add("--num-prompts", type=count, default=25, metavar="N", help="default: %(default)s")
    add("--dataset", type=Path, metavar="FILE", help="conversations like ShareGPT's, in place of random prompts")
    add("--seed", type=int, default=2024, metavar="N", help="default: %(default)s")
    add("--dtype", help="number format of the weights; default: DTYPE")
    add("--max-model-len", metavar="N", help="tokens of prompt and answer together; default: MAX_MODEL_LEN")
    add("--hf-max-batch-size", type=count, default=256, metavar="N", help="of transformers; default: %(default)s")
    add("--quantization", choices=("fp8",), help="of vLLM's weights; only with --backend vllm")
    add(
        "--load-format",
        choices=("auto", "dummy"),
        default="auto",
        help="dummy: random weights, for a model that is not here",
    )
    add("--repeats", type=count, default=5, metavar="N", help="measured rounds after the warm-up; default: %(default)s")
    add("--json", metavar="FILE", help="write all figures there too; - is standard output, in place of the table")
    return args
