"""Plain English, by the phrases that made ours hard to read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_report_and_do_not_tell(page: Path) -> None:
    assert re.findall(r"\b(?:told|said)\s+of\b|\bis\s+told\b", page.read_text()) == []
