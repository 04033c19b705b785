"""A person opens Locust's page, starts a run, and watches it: in a real browser, against the real engine."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.rig.running_stack import ROOT, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rig.running_stack import Stack

SCREENSHOTS = ROOT / "reports" / "ui"
# No look-ups of the browser's own, and no sandbox: it needs more rights than a test machine's root has.
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# A busy box draws a page late: as long as every other wait of the page's.
expect.set_options(timeout=30_000)
ENDPOINTS = ("/v1/chat/completions", "/v1/completions")


@pytest.fixture
def page() -> Iterator[Page]:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        # None: the browser that `playwright install` has brought.
        path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.set_default_timeout(30_000)
        yield page
        browser.close()


def open_form(page: Page, stack: Stack) -> None:
    """Open the form for a new run, which is behind a button once a run has ended."""
    page.goto(stack.url("LOCUST_PORT"))
    form, new = page.get_by_label("Number of users"), page.get_by_role("button", name="New")
    expect(form.or_(new)).to_be_visible()
    if new.is_visible():
        new.click()
    expect(form).to_be_visible()


def cell(page: Page, row: str, column: str) -> float:
    """Return a number of the table by the row's first cell and the column's heading; waits for the row."""
    headings = [heading.inner_text().replace("\n", " ") for heading in page.locator("thead th").all()]
    first = page.get_by_role("cell", name=row, exact=True)
    cells = page.locator("tbody tr").filter(has=first).locator("td")
    return float(cells.nth(headings.index(column)).inner_text())


def test_run_from_the_form_shows_live_figures(stack: Stack, page: Page) -> None:
    open_form(page, stack)
    page.get_by_label("Number of users").fill("8")
    page.get_by_label("Ramp up").fill("8")
    page.get_by_text("Custom parameters").click()
    page.get_by_label(re.compile("^Prompt Tokens")).fill("64")
    page.get_by_label(re.compile("^Output Tokens")).fill("32")
    page.screenshot(path=SCREENSHOTS / "form.png", full_page=True)
    page.get_by_role("button", name="Start").click()
    for endpoint in ENDPOINTS:
        expect(page.locator("tbody tr").filter(has_text=endpoint)).to_be_visible(timeout=60_000)
    page.screenshot(path=SCREENSHOTS / "statistics.png")

    page.get_by_role("tab", name="LLM").click()
    expect(page.get_by_role("columnheader", name="Output tokens/s")).to_be_visible()
    for row in ("chat", "completions", "all"):
        expect(page.get_by_role("cell", name=row, exact=True)).to_be_visible()
    wait_for("the token rate is live", lambda: cell(page, "all", "Output tokens/s") > 0, timeout_s=30)
    page.screenshot(path=SCREENSHOTS / "llm.png")
    assert cell(page, "all", "Requests ended") > 0

    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="New")).to_be_visible()


def test_report_opens_with_its_charts(stack: Stack, page: Page, tmp_path: Path) -> None:
    def report() -> Path | None:
        stack.compose("cp", "locust:/reports", str(tmp_path))
        # A search leaves a report too, with no summary.json beside it.
        reports = (found.parent / "report.html" for found in tmp_path.glob("reports/*/summary.json"))
        return next((found for found in reports if found.exists()), None)

    page.goto(wait_for("the run's report", report, timeout_s=60).as_uri())
    expect(page.get_by_role("heading", name="Client beside server")).to_be_visible()
    charts = page.locator(".js-plotly-plot")
    expect(charts.first).to_be_visible()
    assert charts.count() >= 8
    widths = "charts => charts.map(chart => chart.querySelector('svg').clientWidth - chart.clientWidth)"
    wait_for("charts as wide as their places", lambda: not any(charts.evaluate_all(widths)), timeout_s=10)
    page.screenshot(path=SCREENSHOTS / "report.png", full_page=True)


def test_wrong_value_in_the_form_is_refused(stack: Stack, page: Page) -> None:
    open_form(page, stack)
    page.get_by_text("Custom parameters").click()
    page.get_by_label(re.compile("^Prompt Tokens")).fill("many")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text(re.compile("--prompt-tokens.*many"))).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "refused.png")
