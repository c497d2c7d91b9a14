"""The checks that `make site` and `make slides` end with, and what a slide shows of a cell."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

import build_site
import build_slides
import check_pages
from notebook_tools import LESSONS, read

PAGE = '<html><head>{head}</head><body><h2 id="a">A</h2>{body}</body></html>'


def problems(folder: Path, *, head: str = "", body: str = "", css: str = "") -> list[str]:
    (folder / "page.html").write_text(PAGE.format(head=head, body=body))
    (folder / "style.css").write_text(css)
    return check_pages.problems(folder)


@pytest.mark.parametrize(
    "page",
    [
        {"body": '<a href="https://example.org">a link waits for a click</a>'},
        {"body": '<a href="#a">here</a> <a href="page.html#a">here</a>'},
        {"head": '<link rel="stylesheet" href="style.css">'},
        {"body": '<img src="data:image/png;base64,AAAA">'},
        {"head": '<link rel="canonical" href="https://example.org/page.html">'},
    ],
)
def test_a_page_that_stands_alone(tmp_path, page):
    assert problems(tmp_path, **page) == []


@pytest.mark.parametrize(
    ("page", "part"),
    [
        ({"head": '<script src="https://example.org/x.js"></script>'}, "asks another server"),
        ({"head": '<link rel="stylesheet" href="//example.org/x.css">'}, "asks another server"),
        ({"body": '<img src="http://example.org/x.png">'}, "asks another server"),
        ({"head": "<script>import('https://example.org/x.js')</script>"}, "asks another server"),
        ({"head": "<script>s.src = 'https://example.org/x.js'</script>"}, "asks another server"),
        ({"head": "<style>@import 'https://example.org/x.css'</style>"}, "asks another server"),
        ({"css": "a { background: url(https://example.org/x.png) }"}, "asks another server"),
        ({"head": '<script src="missing.js"></script>'}, "file that is not there"),
        ({"body": '<a href="gone.html">there</a>'}, "file that is not there"),
        ({"body": '<a href="page.html#b">there</a>'}, "heading that is not there"),
    ],
)
def test_a_page_that_does_not(tmp_path, page, part):
    (found,) = problems(tmp_path, **page)
    assert part in found


def test_no_pages_is_a_problem(tmp_path):
    assert check_pages.problems(tmp_path)


def test_the_api_page_has_every_public_name():
    import tutorial_utils

    page = build_site.api_page()
    names = [f".{name}\n" for name in tutorial_utils.__all__]
    names += [".lessons.lens.explore_lens\n", ".lessons.start.plot_pipeline\n"]
    assert [name for name in names if name not in page] == []


def test_a_page_can_be_used_by_voice_and_with_the_keyboard():
    """What a browser makes of it: tests/browser/test_accessible.py."""
    named = '<button class="btn search-button-field x" title="Search" aria-label="Search">'
    icon = '<button class="btn search-button" title="Search" aria-label="Search">'
    table = '<table class="docutils table">'
    mode = '<i class="theme-switch fa-sun" data-mode="light" title="Light"></i><i title="x"></i>'
    found = build_site.accessible(f"{mode}{named}{icon}{table}<table><table-of>")
    assert found == (
        '<i class="theme-switch fa-sun" data-mode="light"></i><i title="x"></i>'
        f'<button class="btn search-button-field x" title="Search">{icon}'
        '<table tabindex="0" class="docutils table"><table><table-of>'
    )


def test_each_page_of_docs_is_in_the_contents(tmp_path):
    build_site.gather_texts(tmp_path)
    listed = {page for pages in build_site.CHAPTERS.values() for page in pages}
    pages = {str(path.relative_to(tmp_path).with_suffix("")) for path in tmp_path.rglob("*.md")}
    assert pages - {"index"} <= listed


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_the_slides_of_a_lesson_can_be_read_from_the_back_row(lesson):
    deck = build_slides.make_deck(read(lesson))
    assert list(build_slides.too_much(deck)) == []
    slides = [c for c in deck.cells if c.metadata.slideshow.slide_type == "slide"]
    assert len(slides) >= 10
    assert all(cell.source.startswith("#") for cell in slides), "each slide begins with a heading"


def cell(source: str = "", text: str = "", **slideshow: object):
    new = nbformat.v4.new_code_cell if not text else nbformat.v4.new_markdown_cell
    made = new(text or source)
    made.metadata["slideshow"] = {"slide_type": "slide", **slideshow}
    return made


def deck_of(*cells):
    return build_slides.make_deck(nbformat.v4.new_notebook(cells=list(cells)))


def test_a_slide_shows_the_lines_that_are_named_and_no_others():
    made = cell("import torch\nfor i in range(3):\n    x = i\n    y = 2", code=["x =", "y ="])
    assert deck_of(made).cells[0].source == "x = i\ny = 2"


def test_a_line_that_is_no_longer_there_is_an_error():
    with pytest.raises(ValueError, match="no line of this cell begins with 'z ='"):
        deck_of(cell("x = 1", code=["z ="]))


def test_a_lesson_with_no_slides_is_an_error():
    with pytest.raises(ValueError, match="slideshow"):
        build_slides.make_deck(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x")]))


def test_the_text_of_a_cell_becomes_the_notes():
    plain = nbformat.v4.new_markdown_cell(f"More of it, see [the lesson]({LESSONS[1].name}).")
    first = nbformat.v4.new_markdown_cell("The whole text.")
    first.metadata["slideshow"] = {"slide_type": "slide", "text": "## Short"}
    deck = deck_of(first, plain)
    shown, notes = deck.cells
    assert shown.source == "## Short" and "The whole text." in notes.source
    assert LESSONS[1].with_suffix(".html").name in notes.source


def test_printed_lines_are_cut():
    made = cell("x", output=2)
    made.outputs = [nbformat.v4.new_output("stream", name="stdout", text="1\n2\n3\n4\n")]
    assert deck_of(made).cells[0].outputs[0].text == "1\n2\n…"


@pytest.mark.parametrize(
    ("made", "part"),
    [
        (cell(text="word " * 70), "has 70 words"),
        (cell("x\n" * 20), "lines of code and print"),
        (cell("x" * 120), "has a line of 120 characters"),
    ],
)
def test_a_slide_that_is_too_full(made, part):
    (found,) = build_slides.too_much(deck_of(made))
    assert part in found
