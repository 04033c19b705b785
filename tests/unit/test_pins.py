"""One image has one tag everywhere, and one command raises it everywhere."""

from __future__ import annotations

import importlib.util
import subprocess
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pins() -> Any:
    loader = SourceFileLoader("pins", str(ROOT / "scripts" / "pins"))
    spec = importlib.util.spec_from_loader("pins", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_every_image_has_one_tag(pins: Any) -> None:
    found = pins.pins()
    for name in ("vllm/vllm-openai-cpu", "prom/prometheus", "grafana/grafana", "caddy"):
        assert len(found[name]) == 1, found.get(name)


def test_no_image_of_the_stack_is_overlooked(pins: Any) -> None:
    found = {f"{name}:{tag}" for name, tags in pins.pins().items() for tag in tags}
    for file in (*ROOT.glob("compose*.yaml"), *ROOT.glob("docker/*/Dockerfile")):
        for line in file.read_text().splitlines():
            word, _, image = line.strip().partition(" ")
            image = image.split(" ")[0]
            own = "$" in image or image.startswith("headroom/")
            if word in {"image:", "FROM"} and not own:
                assert image in found, f"{file.name}: {line}"


def test_a_pin_is_raised_wherever_it_stands(pins: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "ROOT", tmp_path)
    (tmp_path / "compose.yaml").write_text("image: prom/prometheus:v3.5.3\nimage: prom/alertmanager:v0.33.1\n")
    (tmp_path / "README.md").write_text("docker pull prom/prometheus:v3.5.3\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    assert pins.raise_pin("prom/prometheus", "v3.5.4") == 2
    text = (tmp_path / "compose.yaml").read_text()
    assert text == "image: prom/prometheus:v3.5.4\nimage: prom/alertmanager:v0.33.1\n"
    assert "v3.5.4" in (tmp_path / "README.md").read_text()
