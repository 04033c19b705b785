"""A made-up model, small enough to be fetched in every test."""

import hashlib
import json
from pathlib import Path

MODEL_ID = "owner/tiny-chat"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def write_model(folder: Path, *, seed: int = 0) -> None:
    """A model's folder in the form that hubs hold: two shards with an index, config, tokenizer, chat template."""
    folder.mkdir(parents=True)
    for number, name in enumerate(SHARDS):
        digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
        data = digest * 4000
        header = json.dumps({f"t{number}": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}})
        (folder / name).write_bytes(len(header).to_bytes(8, "little") + header.encode() + data)
    index = {"metadata": {}, "weight_map": {f"t{number}": name for number, name in enumerate(SHARDS)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
