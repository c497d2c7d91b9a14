"""Pages of the site and slides have no violation of WCAG 2.1 A and AA that axe-core finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from notebook_tools import ROOT

SITE, SLIDES = ROOT / "build" / "site", ROOT / "build" / "slides"
PAGES = sorted([*SITE.rglob("*.html"), *SLIDES.glob("*.html")])
DECKS = [path for path in PAGES if path.parent == SLIDES and path.name != "index.html"]
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    "rules": {"label-content-name-mismatch": {"enabled": True}},  # axe leaves it out by itself
    "resultTypes": ["violations"],
}
# What axe skips because it is folded. In reveal.js's print view, slides keep the attribute that
# hides them elsewhere, and axe cannot tell what is behind a fragment: its style promises a change.
UNFOLD = """() => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
  for (const slide of document.querySelectorAll(".pdf-page > section")) {
    slide.removeAttribute("aria-hidden");
  }
  for (const part of document.querySelectorAll(".pdf-page .fragment")) {
    part.classList.remove("fragment");
  }
}"""
GREY = '<p style="color:#999;background:#fff">grey</p>'


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """One page for all of them: each new one would read the site's scripts again."""
    with browser.new_context(viewport={"width": 1280, "height": 900}, offline=True) as context:
        yield context.new_page()


def open_all_slides(page: Page, deck: Path) -> None:
    """Opens a deck in the view that is for printing: all slides are there, one below the other."""
    page.goto(f"{deck.as_uri()}?print-pdf&pdfSeparateFragments=false", wait_until="load")
    page.locator(".pdf-page").first.wait_for(state="attached")


def violations(page: Page) -> list[str]:
    """What is wrong with an open page, folded parts too: the rule, and where."""
    page.evaluate(UNFOLD)
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{rule['id']}: {node['html'][:300]}" for rule in found for node in rule["nodes"]]


def test_there_are_pages_and_slides():
    assert any(SITE in page.parents for page in PAGES), "run make site slides first"
    assert any(SLIDES in page.parents for page in PAGES), "run make site slides first"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT / "build")))
def test_no_rule_is_broken(path: Path, page: Page):
    page.goto(path.as_uri(), wait_until="load")
    assert violations(page) == []


@pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.stem)
def test_no_rule_is_broken_on_any_slide(deck: Path, page: Page):
    open_all_slides(page, deck)
    assert violations(page) == []


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ('<img src="x.png">', "image-alt"),
        (GREY, "color-contrast"),
        ("<input>", "label"),
        ('<button aria-label="Find">Search</button>', "label-content-name-mismatch"),
        (f"<details><summary>Hint</summary>{GREY}</details>", "color-contrast"),
        ('<details><summary>Hint</summary><img src="x.png"></details>', "image-alt"),
    ],
)
def test_what_breaks_a_rule_is_found(body: str, rule: str, page: Page):
    page.set_content(f'<html lang="en"><title>T</title><main><h1>T</h1>{body}</main></html>')
    assert [text.split(":")[0] for text in violations(page)] == [rule]


def test_what_breaks_a_rule_is_found_on_each_slide(page: Page):
    open_all_slides(page, DECKS[0])
    page.locator(".pdf-page > section").evaluate_all(
        "(slides, body) => slides.forEach(s => s.insertAdjacentHTML('afterbegin', body))",
        f'<img src="x.png"><div class="fragment visible">{GREY}</div>',
    )
    slides = page.evaluate("Reveal.getTotalSlides()")
    assert slides >= 10
    found = Counter(text.split(":")[0] for text in violations(page))
    assert found == {"image-alt": slides, "color-contrast": slides}
