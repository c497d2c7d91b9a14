"""The names that the first lesson lists are those of the small world."""

from __future__ import annotations

import re

from notebook_tools import lesson_on, read
from tutorial_utils.pocket_llama.corpus import BABIES, CAPITALS, COLOURS, NAMES, OPPOSITES, RECALL

TEXT = next(
    cell.source
    for cell in read(lesson_on("start here")).cells
    if "The names and words that it knows" in cell.source
)


def words_of(name: str) -> list[str]:
    listed = re.search(rf"^- \*\*{name}\*\*: (.*?)\.$", TEXT, re.M | re.S)
    return re.split(r",\s+", listed[1])


def test_people_and_things_are_those_of_the_corpus():
    assert words_of("People") == NAMES
    wordings = {
        "works": "NAME works at ...",
        "lives": "NAME lives in ...",
        "likes": "NAME likes ...",
        "has": "NAME has a ...",
        "wears": "NAME wears a ...",
    }
    for kind, (_, objects) in RECALL.items():
        assert words_of(re.escape(wordings[kind])) == objects


def test_facts_are_counted():
    counts = f"the capitals of {len(CAPITALS)} countries, {len(OPPOSITES)} pairs of opposites, "
    counts += f"the names of {len(BABIES)} young animals, {len(COLOURS)} colours and the days of"
    assert counts in " ".join(TEXT.split())
