"""The hours that the README tells are those of the lessons' first cells."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from notebook_tools import LESSONS, ROOT, read

README = (ROOT / "README.md").read_text(encoding="utf-8")
ROUTES = re.findall(r"^\| ([^|]+): [^|]+\| (\[[^|]+) \| ([\d.]+) \|$", README, re.M)


def minutes(lesson: Path) -> int:
    """What the lesson's first cell says, with its exercises."""
    nb = read(lesson)
    line = re.search(r"^\*\*Time\*\*: .*", nb.cells[0].source, re.M)[0]
    headings = re.findall(
        r"^## Exercise .*\((\d+) minutes", "\n".join(c.source for c in nb.cells), re.M
    )
    exercises = sum(map(int, headings))
    told = re.search(r"(\d+) for the exercises", line)
    assert told is None or int(told[1]) == exercises, lesson.name
    return int(re.search(r"(\d+) minutes", line)[1]) + ("included" not in line) * exercises


def test_the_whole_series():
    told = re.search(r"The whole series takes about (\d+) hours, exercises included", README)
    assert int(told[1]) == pytest.approx(sum(map(minutes, LESSONS)) / 60, abs=1.3)


@pytest.mark.parametrize(("name", "lessons", "hours"), ROUTES, ids=[name for name, *_ in ROUTES])
def test_a_route(name, lessons, hours):
    paths = [ROOT / path for path in re.findall(r"\]\((notebooks/[^)]+)\)", lessons)]
    assert len(paths) > 2
    assert float(hours) == pytest.approx(sum(map(minutes, paths)) / 60, abs=0.3)


def test_there_are_four_routes():
    assert len(ROUTES) == 4


def test_the_readme_names_all_lessons():
    rows = re.findall(r"^\| \[\d\d [^\]]+\]\((notebooks/[^)]+)\) \|", README, re.M)
    assert [ROOT / path for path in rows] == LESSONS
