"""Every lesson keeps to docs/writing-a-lesson.md."""

from __future__ import annotations

import pytest

import lesson_contract
from answers import EXERCISES, check_of
from notebook_tools import LESSONS, read


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", lesson_contract.RULES, ids=lambda rule: rule.__name__)
def test_lesson(rule, lesson):
    problems = list(rule(read(lesson), lesson.stem[:2]))
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_the_table_of_answers_calls_each_check_as_the_lesson_does(lesson):
    for _, check, _ in lesson_contract.exercises(read(lesson)):
        assert EXERCISES[check_of(check.source)].call in check.source


def test_a_docstring_names_a_lesson_by_what_it_is_on():
    """The number is looked up, and what is no lesson is an error."""
    lessons = {int(path.stem[:2]): path.stem[3:] for path in LESSONS}
    text = "By hand: the lesson on hooks (the mistakes) and the lesson on DoLa."
    found = [lessons[number] for number in lesson_contract.lessons_on(text)]
    assert found == ["activations_with_hooks", "contrasting_layers_dola"]
    with pytest.raises(ValueError, match="does not name exactly one"):
        lesson_contract.lessons_on("By hand: the lesson on cooking.")


def test_widgets_are_known():
    functions = lesson_contract.package_functions()
    widgets = {name for name, (module, _) in functions.items() if module == "widgets"}
    assert {"LayerPicker", "explore_lens", "step_decoding"} <= widgets
    assert "filtered_choice" not in widgets
