"""The hours of the README and the minutes of the guide are those of the lessons' first cells."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from notebook_tools import LESSONS, ROOT, read

README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs/instructor-guide.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^\| \[\d\d\]\(\.\./([^)]+)\) \| (.+) \| (\d+) \|$", GUIDE, re.M)
PLANS = re.findall(r"^\*\*(?:90 minutes|Half a day|A full day).*\n\n((?:\|.*\n)+)", GUIDE, re.M)
ROUTE = r"^\| ([^|\n]+: [^|\n]+) \| (\[[^|\n]+) \| ([\d.]+) \|"
ROUTES = re.findall(rf"{ROUTE}$", README, re.M)
COURSES = re.findall(rf"{ROUTE} (\d+) \|$", GUIDE, re.M)


def minutes(lesson: Path) -> int:
    """What the lesson's first cell says, with its exercises."""
    return sum(reading_and_exercises(lesson))


def reading_and_exercises(lesson: Path) -> tuple[int, int]:
    nb = read(lesson)
    line = re.search(r"^\*\*Time\*\*: .*", nb.cells[0].source, re.M)[0]
    headings = re.findall(
        r"^## Exercise .*\((\d+) minutes", "\n".join(c.source for c in nb.cells), re.M
    )
    exercises = sum(map(int, headings))
    told = re.search(r"(\d+) for the exercises", line)
    assert told is None or int(told[1]) == exercises, lesson.name
    told_in_all = int(re.search(r"(\d+) minutes", line)[1])
    return told_in_all - ("included" in line) * exercises, exercises


def test_the_whole_series():
    told = re.search(r"The whole series takes about (\d+) hours, exercises included", README)
    assert int(told[1]) == pytest.approx(sum(map(minutes, LESSONS)) / 60, abs=1.3)


@pytest.mark.parametrize(("name", "lessons", "hours"), ROUTES, ids=[name for name, *_ in ROUTES])
def test_a_route(name, lessons, hours):
    paths = [ROOT / path for path in re.findall(r"\]\((notebooks/[^)]+)\)", lessons)]
    assert len(paths) > 2
    assert float(hours) == pytest.approx(sum(map(minutes, paths)) / 60, abs=0.3)


def test_there_are_four_routes_also_in_the_guide():
    assert len(ROUTES) == 4
    same = [(name, lessons.replace("(../", "("), hours) for name, lessons, hours, _ in COURSES]
    assert same == ROUTES
    assert [int(n) for *_, n in COURSES] == [math.ceil(float(hours) / 1.5) for *_, hours in ROUTES]


def test_the_readme_names_all_lessons():
    rows = re.findall(r"^\| \[\d\d [^\]]+\]\((notebooks/[^)]+)\) \|", README, re.M)
    assert [ROOT / path for path in rows] == LESSONS


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_the_guides_sections_take_as_long_as_their_lesson(lesson):
    """Beam search is beside the lesson's time; sections that are not listed take a few minutes."""
    rows = [(what, int(m)) for path, what, m in SECTIONS if ROOT / path == lesson]
    listed = sum(m for what, m in rows if "beam search" not in what)
    reading, _ = reading_and_exercises(lesson)
    assert reading - 6 <= listed <= reading


def test_the_plans_fill_their_time():
    taken = []
    for plan in PLANS:
        rows = re.findall(r"^\| (\d+) \| (.+) \|$", plan, re.M)
        taken.append(sum(int(m) for m, what in rows if what not in ("Break", "Lunch")))
    assert taken == [90, 210, 360]
