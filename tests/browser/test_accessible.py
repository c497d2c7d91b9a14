"""Pages of the site and slides have no violation of WCAG 2.1 A and AA that axe-core finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from notebook_tools import ROOT

SITE, SLIDES = ROOT / "build" / "site", ROOT / "build" / "slides"
PAGES = sorted([*SITE.rglob("*.html"), *SLIDES.glob("*.html")])
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    "rules": {"label-content-name-mismatch": {"enabled": True}},  # axe leaves it out by itself
    "resultTypes": ["violations"],
}


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """One page for all of them: each new one would read the site's scripts again."""
    with browser.new_context(viewport={"width": 1280, "height": 900}, offline=True) as context:
        yield context.new_page()


def violations(page: Page) -> list[str]:
    """What is wrong with an open page: the rule, and where."""
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{rule['id']}: {node['html'][:300]}" for rule in found for node in rule["nodes"]]


def test_there_are_pages_and_slides():
    assert any(SITE in page.parents for page in PAGES), "run make site slides first"
    assert any(SLIDES in page.parents for page in PAGES), "run make site slides first"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT / "build")))
def test_no_rule_is_broken(path: Path, page: Page):
    page.goto(path.as_uri(), wait_until="load")
    assert violations(page) == []


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ('<img src="x.png">', "image-alt"),
        ('<p style="color:#999;background:#fff">grey</p>', "color-contrast"),
        ("<input>", "label"),
        ('<button aria-label="Find">Search</button>', "label-content-name-mismatch"),
    ],
)
def test_what_breaks_a_rule_is_found(body: str, rule: str, page: Page):
    page.set_content(f'<html lang="en"><title>T</title><main><h1>T</h1>{body}</main></html>')
    assert [text.split(":")[0] for text in violations(page)] == [rule]
