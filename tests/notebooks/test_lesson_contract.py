"""Every lesson keeps to docs/writing-a-lesson.md."""

from __future__ import annotations

import pytest

import lesson_contract
from notebook_tools import LESSONS, ROOT, read


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", lesson_contract.RULES, ids=lambda rule: rule.__name__)
def test_lesson(rule, lesson):
    problems = list(rule(read(lesson), lesson.stem[:2]))
    assert not problems, "\n".join(problems)


def test_the_page_shows_the_setup_cell_that_is_tested():
    page = (ROOT / "docs" / "writing-a-lesson.md").read_text(encoding="utf-8")
    assert lesson_contract.SETUP in page.replace("\n   ", "\n")
