"""Plain English, by the phrases that made ours hard to read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
MODULES = [file for folder in ("loadtest", "scripts", "docker") for file in (ROOT / folder).rglob("*.py")]
COMMANDS = [file for file in (ROOT / "scripts").iterdir() if file.is_file() and "python" in file.read_text()[:30]]
UNPLAIN = re.compile(r"(?:What|Whether|Where|When|How|Why|Which|Who)\b|.*\b(?:told|said) of\b")


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_pages_report_and_do_not_tell(page: Path) -> None:
    assert re.findall(r"\b(?:told|said)\s+of\b|\bis\s+told\b", page.read_text()) == []


@pytest.mark.parametrize("file", [*MODULES, *COMMANDS], ids=page_name)
def test_docstrings_start_with_verb_or_noun(file: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first_line = (ast.get_docstring(node) or "").partition("\n")[0]
            if UNPLAIN.match(first_line):
                found.append(first_line)
    assert found == []
