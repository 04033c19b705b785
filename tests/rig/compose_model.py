from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = {
    "base": (),
    "gpu": ("gpu",),
    "rocm": ("rocm",),
    "xpu": ("xpu",),
    "airgap": ("airgap",),
    "edge": ("edge",),
    "scale": ("scale",),
    "scale-gpu": ("gpu", "scale"),
    "scale-rocm": ("rocm", "scale"),
    "scale-xpu": ("xpu", "scale"),
    "scale-airgap": ("airgap", "scale"),
    "edge-gpu": ("gpu", "edge"),
    "edge-rocm": ("rocm", "edge"),
    "edge-xpu": ("xpu", "edge"),
    "edge-airgap": ("airgap", "edge"),
    "scale-edge": ("scale", "edge"),
}


def render(*layers: str, **env: str) -> dict[str, Any]:
    """Render compose.yaml with `layers` and `env`, every profile on; RENDER_GID, which has no default, is 993.

    Raises AssertionError with Compose's own message when the files are not valid.
    """
    files = ["compose.yaml", *(f"compose.{layer}.yaml" for layer in layers)]
    options = [option for file in files for option in ("-f", file)]
    done = subprocess.run(
        ["docker", "compose", "--env-file", os.devnull, *options, "--profile", "*", "config", "--format", "json"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "RENDER_GID": "993", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    model: dict[str, Any] = json.loads(done.stdout)
    return model


@pytest.fixture(params=LAYERS, scope="session")
def layer(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Every layer's rendered model in turn."""
    return render(*LAYERS[request.param])
