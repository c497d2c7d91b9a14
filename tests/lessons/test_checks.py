"""The checks say Right to right answers, and give each wrong one the hint that it needs."""

from __future__ import annotations

import pytest

from answers import EXERCISES, TABLES, Exercise, said
from mutants import mutants
from tutorial_utils.lessons import checks

pytestmark = pytest.mark.usefixtures("one_thread")

FIRST = [(exercise, exercise.givens[0]) for exercise in EXERCISES.values()]
FUNCTIONS = [(exercise, given) for exercise, given in FIRST if exercise.is_function]
ALL = [(exercise, given) for exercise in EXERCISES.values() for given in exercise.givens]
# Of any exercise that asks for a function, and of any that asks for a value.
ANY_FUNCTION = {
    "is there a `return`": "lambda *given: None",
    "raised TypeError": "lambda: 1",
    "keep the def line": "7",
    "Not tried yet": "lambda *given: ...",
}
ANY_VALUE = {"Hint: ": "None", "Not tried yet": "..."}
# Changes to a solution that leave it right: the line as it is afterwards.
STILL_RIGHT = """
    return output
my_picks = torch.tensor(high)[jsd[high].argmax(dim=0)]
    new_logits[ids] = torch.where(said >= 0, said / penalty, said * penalty)
        if found > 0:
        if found >= 1:
    return batches + [batch]
    unit = direction / direction.norm()
entropies = [entropy(softmax(die_logits / T)) / math.log(2) for T in (0.5, 1, 2)]
    return to_ids(prompt + ' ' + answer)[0, start]
    log_probs = logits[-k - 1:-1].log_softmax(dim=-1)
next_pair, count = count_pairs(words).most_common(2)[0]
""".strip("\n").split("\n")


def name(part: object) -> str:
    if isinstance(part, Exercise):
        return f"{part.topic}-{part.name}"
    return part.split("\n")[-1][:60] if isinstance(part, str) else ""


def test_each_check_has_a_table_of_answers():
    assert sorted(EXERCISES) == sorted(checks.__all__)
    assert len(TABLES) == len({exercise.topic for exercise in EXERCISES.values()})


@pytest.mark.parametrize(
    ("exercise", "given", "answer"),
    [(exercise, given, answer) for exercise, given in ALL for answer in exercise.right],
    ids=name,
)
def test_right_answers(exercise, given, answer):
    assert said(exercise, answer, given).startswith("Right: ")


@pytest.mark.parametrize(
    ("exercise", "given", "hint", "answer"),
    [
        *((e, given, hint, answer) for e, given in ALL for hint, answer in e.wrong),
        *((e, g, h, f"{e.name} = {a}") for e, g in FUNCTIONS for h, a in ANY_FUNCTION.items()),
        *(
            (e, g, h, f"{e.name} = {a}")
            for e, g in FIRST
            if not e.is_function
            for h, a in ANY_VALUE.items()
        ),
    ],
    ids=name,
)
def test_wrong_answers_get_a_hint(exercise, given, hint, answer):
    text = said(exercise, answer, given)
    assert hint in text
    assert text.startswith("Not tried yet: " if hint == "Not tried yet" else "Not yet: ")
    assert ("\nHint: " in text) == (hint != "Not tried yet")


@pytest.mark.parametrize(("exercise", "given"), FIRST, ids=name)
def test_no_wrong_answer_passes(exercise, given):
    """Of ten that run at least, by hand or the solution with one thing changed."""
    ran = sum("raised" not in hint and hint != "Not tried yet" for hint, _ in exercise.wrong)
    for mutant in mutants(exercise.right[0]):
        try:
            text = said(exercise, mutant, given)
        except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
            text = f"Not yet: the cell raised {error!r}"
        changed = [line for line in mutant.split("\n") if line in STILL_RIGHT]
        assert text.startswith("Right: " if changed else "Not yet: "), f"{mutant}\n\n{text}"
        ran += not changed and "raised" not in text
    assert ran >= 10
