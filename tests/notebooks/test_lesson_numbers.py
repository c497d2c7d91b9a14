"""Lessons can be put in between: code names none by its number, and each number in a text fits.

After a rename this lists every number, link and file name that is wrong now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from notebook_tools import LESSONS, ROOT

CODE = [
    path
    for folder in ("tutorial_utils", "tests", "scripts", "bench", "pocket_llama", "docs")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
CODE += [ROOT / "conftest.py", ROOT / "Makefile", *ROOT.glob(".github/**/*.y*ml")]
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("pocket_llama/*.md")]
TEXTS += [*LESSONS, *ROOT.glob(".devcontainer/*.json"), *ROOT.glob(".github/**/*.md")]

NUMBER = re.compile(r"\blessons?\s+\d\d\b", re.I)
LITERAL = re.compile(r"""["']0\d["']""")
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
CODE_SPAN = re.compile(r"^```.*?^```|`[^`\n]*`", re.M | re.S)
# After links were taken out: "lessons [] to NN", and a table's row of a lesson.
ALSO = re.compile(r"\[\](?:,| to| and| or)\s+\d\d\b|^\|\s*0\d\s*\|", re.M)
FILE = re.compile(r"\b\d\d_([a-z]\w+)")


def in_code(text: str) -> Iterator[tuple[int, str]]:
    """Where a lesson is named by its number: the place in the text, and what is wrong."""
    for found in [*NUMBER.finditer(text), *LITERAL.finditer(text)]:
        yield found.start(), f"{found.group()}: say what the lesson is on"
    for found in FILE.finditer(text):
        if any(path.stem[3:].startswith(found.group(1)) for path in LESSONS):
            yield found.start(), f"{found.group()}: look it up with notebook_tools.lesson_on"


def in_text(text: str, folder: Path) -> Iterator[tuple[int, str]]:
    """Numbers outside links, and links and file names that are wrong."""
    spans_blank = CODE_SPAN.sub(lambda span: re.sub(r"[^\n]", " ", span.group()), text)
    links = list(LINK.finditer(spans_blank))
    for found in links:
        says, target = found.group(1), found.group(2).partition("#")[0]
        if target and ":" not in target and not (folder / target).exists():
            now = [path.name for path in LESSONS if path.name[3:] == Path(target).name[3:]]
            instead = f"it is {now[0]} now" if now else f"{target} is not there"
            yield found.start(), f"{found.group()}: {instead}"
        number = re.match(r"(\d\d)_\w+\.ipynb$", Path(target).name)
        if number and set(re.findall(r"\b\d\d\b", says)) - {number.group(1)}:
            yield found.start(), f"{found.group()}: the number is {number.group(1)}"
    rest = text
    for found in reversed(links):
        lines = "\n" * found.group().count("\n")
        rest = f"{rest[: found.start()]}[]{lines}{rest[found.end() :]}"
    for found in [*NUMBER.finditer(rest), *ALSO.finditer(rest)]:
        yield _as_in(text, rest, found.start()), f"{found.group()}: make the number a link"
    for found in FILE.finditer(rest):
        if not any(path.stem.startswith(found.group()) for path in LESSONS):
            yield _as_in(text, rest, found.start()), f"{found.group()}: no lesson's file"


def _as_in(text: str, rest: str, place: int) -> int:
    """The beginning of the line in `text` that holds this place of `rest`."""
    return len("\n".join(text.split("\n")[: rest.count("\n", 0, place)])) + 1


def problems(path: Path) -> list[str]:
    """What is wrong in a file, each with the place."""
    name, text = path.relative_to(ROOT), path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        found = in_text(text, path.parent) if path in TEXTS else in_code(text)
        return [f"{name}:{text.count(chr(10), 0, place) + 1}: {what}" for place, what in found]
    lines = []
    for number, cell in enumerate(json.loads(text)["cells"]):
        source = "".join(cell["source"])
        look = in_text if cell["cell_type"] == "markdown" else lambda text, folder: in_code(text)
        lines += [f"{name}: cell {number}: {what}" for _, what in look(source, path.parent)]
        slide = cell["metadata"].get("slideshow", {}).get("text", "")
        title = re.match(r"# (\d\d) ", slide)
        if title and title.group(1) != path.name[:2]:
            lines.append(f"{name}: the slide of cell {number}: the number is {path.name[:2]}")
        lines += [f"{name}: the slide of cell {number}: {what}" for _, what in in_code(slide)]
    return lines


def test_lessons_are_numbered_one_after_the_other():
    assert [path.name[:2] for path in LESSONS] == [f"{n:02}" for n in range(len(LESSONS))]


def test_no_code_names_a_lesson_by_its_number():
    found = [line for path in CODE for line in problems(path)]
    assert not found, "\n" + "\n".join(found)


def test_each_number_in_a_text_fits_its_lesson():
    found = [line for path in TEXTS for line in problems(path)]
    assert not found, "\n" + "\n".join(found)


FIRST, SECOND = LESSONS[0].name, LESSONS[1].name


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (f"See [lesson {SECOND[:2]}]({FIRST}).", "the number is"),
        (f"See [{FIRST[:2]} start]({SECOND}).", "the number is"),
        ("See [this](99_gone.ipynb).", "is not there"),
        (f"See [lesson {77}]({77}_{FIRST[3:]}).", f"it is {FIRST} now"),
        (f"See Lesson {1:02}.", "make the number a link"),
        (f"Lessons [{FIRST[:2]}]({FIRST}) to {4:02}.", "make the number a link"),
        (f"| {1:02} | tokens |", "make the number a link"),
        (f"Run `notebooks/{77}_{FIRST[3:]}`.", "no lesson's file"),
    ],
)
def test_what_is_wrong_in_a_text_is_found(text, part):
    ((place, what),) = in_text(f"A line.\n\n{text}\n", LESSONS[0].parent)
    assert part in what and place == 9 + text.find("[") * text.startswith("See [")


def test_what_fits_passes():
    text = f"[Lesson {FIRST[:2]}]({FIRST}#part), then [the next]({SECOND}); `{SECOND}`, 04 pages."
    assert list(in_text(text, LESSONS[0].parent)) == []


@pytest.mark.parametrize("code", [f"# lesson {4:02}", f'open("{FIRST}")', f'number == "{4:02}"'])
def test_a_number_in_code_is_found(code):
    assert len(list(in_code(code))) == 1
    assert not list(in_code("# the lesson on hooks"))
