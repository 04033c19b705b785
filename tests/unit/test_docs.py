from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
EVIDENCE = sorted((ROOT / "docs/evidence").glob("2*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS, *sorted((ROOT / "docs/evidence").glob("*.md"))]


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of a page's headings; "" is the page itself."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {"", *(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\((?!https?://)([^)]+)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=page_name)
def test_paths_in_pages_exist(page: Path) -> None:
    paths = re.findall(r"\b(?:docker|examples|loadtest|scripts|tests)/[\w./-]*\w", page.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", DOCS, ids=page_name)
def test_docs_have_no_history(page: Path) -> None:
    # A date with a time of day is data, such as a line of a trace; a link may name a page of evidence.
    text = re.sub(r"\]\([^)]*\)", "", page.read_text())
    history = r"\b20\d\d-\d\d-\d\d\b(?! \d\d:)|\bother work\b|\bearlier (?:run|search|session|method)"
    assert re.findall(history, text) == []


@pytest.mark.parametrize("page", EVIDENCE, ids=page_name)
def test_evidence_follows_its_template(page: Path) -> None:
    headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
    assert headings == ["Question", "Command", "Machine and versions", "Table", "Reading"]
    assert re.match(r"\d{4}-\d\d-\d\d-", page.name)
    assert f"({page.name})" in (page.parent / "README.md").read_text()


def test_readme_names_every_layer_and_port() -> None:
    readme = (ROOT / "README.md").read_text()
    for layer in ROOT.glob("compose.*.yaml"):
        assert f"COMPOSE_FILE=compose.yaml:{layer.name}" in readme
    for port in re.findall(r"_PORT:-(\d+)\}", (ROOT / "compose.yaml").read_text()):
        assert f"[{port}](http://localhost:{port}" in readme


def test_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_gate_runs_the_readmes_test_command() -> None:
    assert re.search(r"^scripts/test ", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert re.search(r"^(exec )?scripts/test$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
