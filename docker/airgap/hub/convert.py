"""Converts a GGUF file into a model hub's folder: safetensors in shards, config, tokenizer.

    python convert.py MODEL.gguf FOLDER

The quantised weights are written as float32, so that an engine loads them like any other checkpoint.
"""

import shutil
import sys
from pathlib import Path

# Only the engine's image has these two.
import torch  # type: ignore[import-not-found,unused-ignore]
from transformers import (  # type: ignore[import-not-found,unused-ignore]
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
)

# Half a gigabyte becomes several files and an index, like a large model on a hub.
SHARD_SIZE = "100MB"


def convert(gguf: Path, folder: Path) -> None:
    """Write the model in `gguf` to `folder`; replaces earlier output."""
    shutil.rmtree(folder, ignore_errors=True)
    place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    model = AutoModelForCausalLM.from_pretrained(
        **place, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
