"""A tiny model for delivery tests, and the program that fetches it."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

MODEL_ID = "owner/tiny-chat"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
_PACKAGE = Path(__file__).parents[2] / "docker/model"


def write_model(folder: Path, *, seed: int = 0) -> None:
    """Write a model's folder like a hub's: two shards with an index, config, tokenizer, chat template."""
    folder.mkdir(parents=True)
    for number, name in enumerate(SHARDS):
        data = hashlib.sha256(f"{seed} {number}".encode()).digest() * 50_000  # 1.6 MB
        header = json.dumps({f"t{number}": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}})
        (folder / name).write_bytes(len(header).to_bytes(8, "little") + header.encode() + data)
    index = {"metadata": {}, "weight_map": {f"t{number}": name for number, name in enumerate(SHARDS)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def run_model(
    volume: Path, *arguments: str, address: str = "http://127.0.0.1:1", answer: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the container's program, with all output in `stdout`.

    In a process of its own, because clients read their settings at import. By default nothing listens at the hubs'
    address, so that only a run without network passes.
    """
    volume.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(_PACKAGE),
        "PYTHONUNBUFFERED": "1",
        "MODEL_VOLUME": str(volume),
        "MODEL_ID": MODEL_ID,
        "MODELSCOPE_ENDPOINT": address,
        "HF_ENDPOINT": address,
    }
    return subprocess.run(
        [sys.executable, "-m", "delivery", *arguments],
        env=environment | settings,
        input=answer,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The error line of a failed run, which must be the only one and the last."""
    lines = result.stdout.splitlines()
    assert result.returncode == 1, result.stdout
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], result.stdout
    return lines[-1]
