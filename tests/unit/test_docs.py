from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_names_every_layer_and_port() -> None:
    readme = (ROOT / "README.md").read_text()
    for layer in ROOT.glob("compose.*.yaml"):
        assert f"COMPOSE_FILE=compose.yaml:{layer.name}" in readme
    for port in re.findall(r"_PORT:-(\d+)\}", (ROOT / "compose.yaml").read_text()):
        assert f"[{port}](http://localhost:{port}" in readme


def test_the_gate_runs_the_readmes_test_command() -> None:
    assert re.search(r"^scripts/test ", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("\nscripts/test")
