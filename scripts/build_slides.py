"""Builds a deck of slides for each lesson in build/slides: `make slides` calls it.

The metadata of the notebook's cells, under `slideshow`, says what is on a slide:

    slide_type  "slide" begins a slide; "-" continues it; "fragment" continues it after a key press;
                a cell without this key is on no slide
    text        Markdown that stands for the cell's text, or above its code
    code        the beginnings of the lines to show; [] shows none, without the key all are shown
    output      how many lines of what was printed; without the key all are shown

The cells' own text becomes the speaker's notes (key S). Runs in .venv-site.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbconvert.preprocessors import TagRemovePreprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from build_site import installed_file
from check_pages import problems

ROOT = Path(__file__).resolve().parents[1]
SITE, SLIDES = ROOT / "docs" / "site", ROOT / "build" / "slides"
# What the back row can read. Of a slide's 720 px, a line of text has 34 and one of code 20 to 28.
MOST_WORDS, MOST_LINES, MOST_LINES_BESIDE_FIGURE, LONGEST_LINE = 60, 16, 4, 95
NARROW, WIDE, MOST_LARGE_LINES = 68, 79, 12


def main() -> int:
    shutil.rmtree(SLIDES, ignore_errors=True)
    SLIDES.mkdir(parents=True)
    lessons = sorted(ROOT.glob("notebooks/[0-9][0-9]_*.ipynb"))
    found, links = [], []
    for path in lessons:
        nb = nbformat.read(path, as_version=4)
        try:
            deck = make_deck(nb)
        except ValueError as error:
            found.append(f"{path.name}: {error}")
            continue
        found += [f"{path.name}: {what}" for what in too_much(deck)]
        title = nb.cells[0].source.split("\n")[0].removeprefix("# ")
        (SLIDES / f"{path.stem}.html").write_text(to_html(deck, title), encoding="utf-8")
        links.append(f'<li><a href="{path.stem}.html">{title}</a></li>')
    copy_assets()
    style = "font: 24px/1.6 system-ui, sans-serif; margin: 2em"
    page = '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Slides</title>'
    page += f'<body style="{style}"><h1>Slides</h1><ul>{"".join(links)}</ul></body></html>'
    (SLIDES / "index.html").write_text(page, encoding="utf-8")
    found += problems(SLIDES)
    print(*found, sep="\n", file=sys.stderr)
    print(f"{len(links)} decks. Open build/slides/index.html in a browser; S opens the notes.")
    return 1 if found else 0


def make_deck(nb: NotebookNode) -> NotebookNode:
    """The notebook's slides as a notebook: cells cut to what is shown, the rest as notes."""
    deck = nbformat.v4.new_notebook(metadata=nb.metadata)
    notes: list[str] = []
    for cell in nb.cells:
        show = cell.metadata.get("slideshow", {})
        if show.get("slide_type") == "slide":
            deck.cells += _notes(notes) if deck.cells else []
            notes = []
        if cell.cell_type == "markdown":
            notes.append(cell.source)
        if show.get("slide_type") in ("slide", "fragment", "-"):
            deck.cells += shown(cell, show)
    deck.cells += _notes(notes)
    if not any(cell.metadata.slideshow.slide_type == "slide" for cell in deck.cells):
        raise ValueError("no cell's metadata says `slideshow`: see docs/writing-a-lesson.md")
    return deck


def _notes(texts: list[str]) -> list[NotebookNode]:
    text = re.sub(r"\]\((\d\d_\w+)\.ipynb", r"](\1.html", "\n\n".join(texts))
    text = re.sub(r"\[([^]]+)\]\(\.\./[^)]*\)", r"\1", text)  # what is not among the slides
    cell = new_markdown_cell(text, metadata={"slideshow": {"slide_type": "notes"}})
    return [cell] if text else []


def shown(cell: NotebookNode, show: dict) -> list[NotebookNode]:
    """The one or two cells of the deck that a cell of the lesson becomes."""
    kind, text = {"slide_type": show["slide_type"]}, show.get("text")
    cells = []
    if text or cell.cell_type == "markdown":
        cells.append(new_markdown_cell(text or cell.source, metadata={"slideshow": kind}))
        kind = {"slide_type": "-"}
    if cell.cell_type == "code":
        source = "\n".join(keep_lines(cell.source, show.get("code")))
        outputs = [keep_output(output, show.get("output")) for output in cell.outputs]
        outputs = [output for output in outputs if output]
        lines = [*source.split("\n"), *"".join(o.get("text", "") for o in outputs).split("\n")]
        has_figure = any(shows_figure(output) for output in outputs)
        tags = [
            _size(lines),
            *["hide-input"] * (not source),
            *["beside"] * bool(source and has_figure),
        ]
        new = nbformat.v4.new_code_cell(source, outputs=outputs)
        new.metadata = nbformat.from_dict({"slideshow": kind, "tags": tags})
        cells.append(new)
    return cells


def _size(lines: list[str]) -> str:
    """The class that sets the size of a cell's code and print; a longer line of print is broken."""
    longest = max((len(line) for line in lines if len(line) <= LONGEST_LINE), default=0)
    if longest > WIDE:
        return "wide"
    return "narrow" if longest <= NARROW and len(lines) <= MOST_LARGE_LINES else "middle"


def keep_lines(source: str, beginnings: list[str] | None) -> list[str]:
    """The lines of `source` that begin with one of these, after their indent; None keeps all."""
    lines = source.split("\n")
    if beginnings is None:
        return lines
    for beginning in beginnings:
        if not any(line.strip().startswith(beginning) for line in lines):
            raise ValueError(f"no line of this cell begins with {beginning!r}:\n{source}")
    kept = [line for line in lines if line.strip().startswith(tuple(beginnings))]
    indent = min((len(line) - len(line.lstrip()) for line in kept), default=0)
    return [line[indent:] for line in kept]


def shows_figure(output: NotebookNode) -> bool:
    """As `describe_figure` leaves it: an HTML image, whose `alt` the slides keep."""
    return "<img" in output.get("data", {}).get("text/html", "")


def keep_output(output: NotebookNode, most: int | None) -> NotebookNode | None:
    """The output with at most `most` lines of printed text; None keeps all."""
    if output.output_type != "stream" or most is None:
        return output
    lines = output.text.rstrip("\n").split("\n")
    text = "\n".join(lines[:most] + ["…"] * (len(lines) > most > 0))
    return nbformat.from_dict({**output, "text": text}) if most else None


def too_much(deck: NotebookNode) -> Iterator[str]:
    """What does not fit on a slide, or cannot be read from the back row."""
    slides: list[list[NotebookNode]] = []
    for cell in deck.cells:
        slides += [[]] if cell.metadata.slideshow.slide_type == "slide" else []
        slides[-1] += [cell] if cell.metadata.slideshow.slide_type != "notes" else []
    for number, cells in enumerate(slides, start=1):
        code = [cell for cell in cells if cell.cell_type == "code"]
        outputs = [output for cell in code for output in cell.outputs]
        words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
        written = [line for cell in code if cell.source for line in cell.source.split("\n")]
        printed = [line for o in outputs for line in o.get("text", "").rstrip("\n").split("\n")]
        lines = len(written) + sum(-(-len(line) // LONGEST_LINE) for line in printed)
        figures = sum(shows_figure(output) for output in outputs)
        most = MOST_LINES_BESIDE_FIGURE if figures else MOST_LINES - words // 8
        longest = max(map(len, written), default=0)
        if words > MOST_WORDS:
            yield f"slide {number} has {words} words: {MOST_WORDS} at most"
        if lines > most:
            yield f"slide {number} has {lines} lines of code and print: {most} at most"
        if longest > LONGEST_LINE:
            yield f"slide {number} has a line of {longest} characters: {LONGEST_LINE} at most"
        if figures > 1:
            yield f"slide {number} has {figures} figures: one at most"


def to_html(deck: NotebookNode, title: str) -> str:
    deck.metadata.title = title
    exporter = SlidesExporter(
        template_name="slides",
        extra_template_basedirs=[str(SITE)],
        reveal_url_prefix="reveal.js",
        reveal_theme="white",
        exclude_anchor_links=True,
    )
    hide = TagRemovePreprocessor(remove_input_tags={"hide-input"}, enabled=True)
    exporter.register_preprocessor(hide, enabled=True)
    return exporter.from_notebook_node(deck)[0]


def copy_assets() -> None:
    """reveal.js and MathJax, from the distributions that carry them."""
    shutil.copy(SITE / "slides.css", SLIDES)
    for name in (
        "dist/reveal.js",
        "dist/reveal.css",
        "dist/theme/white.css",
        "plugin/notes/notes.js",
    ):
        to = SLIDES / "reveal.js" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        text = installed_file("sphinx-revealjs", f"revealjs/{name}").read_text(encoding="utf-8")
        to.write_text(re.sub(r"@import url.*", "", text), encoding="utf-8")  # a font
    shutil.copy(installed_file("sphinx-revealjs", "revealjs/LICENSE"), SLIDES / "reveal.js")
    shutil.copy(installed_file("sphinx-mathjax-offline", "mathjax/tex-svg.js"), SLIDES)


if __name__ == "__main__":
    sys.exit(main())
