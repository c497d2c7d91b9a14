"""Every lesson, each cell run twice in a row, and every lesson on a second model.

(That every lesson runs as it is, once and on the shipped model, is tested through nbmake:
`pytest notebooks/`.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from lesson_contract import exercises
from lesson_runs import Report, run_once, run_twice
from notebook_tools import LESSONS, read
from tiny_models import make_gpt2

AT_ONCE = min(2, os.cpu_count() or 1)
every_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)


@pytest.fixture(scope="session")
def runs(request, tmp_path_factory) -> Iterator[dict[tuple[str, Path], Future[Report]]]:
    """All runs that the tests of this session ask for, two at a time and one core for each."""
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // AT_ONCE))}
    gpt2 = make_gpt2(tmp_path_factory.mktemp("second") / "tiny-gpt2")
    kinds: dict[str, Callable[[Path], Report]] = {
        "twice": lambda lesson: run_twice(lesson, **threads),
        "second": lambda lesson: run_once(lesson, TUTORIAL_MODEL=str(gpt2), **threads),
    }
    wanted = {
        (kind, item.callspec.params["lesson"]): kinds[kind]
        for item in request.session.items
        for kind in kinds
        if kind in getattr(item, "fixturenames", ())
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {key: pool.submit(run, key[1]) for key, run in wanted.items()}
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def twice(runs, lesson) -> Report:
    return runs["twice", lesson].result()


@pytest.fixture
def second(runs, lesson) -> Report:
    return runs["second", lesson].result()


def test_there_are_lessons():
    """With none, every test below would be skipped and all would look well."""
    assert LESSONS


@every_lesson
def test_each_cell_can_be_run_twice(lesson, twice):
    assert not twice.problems, "\n".join(twice.problems)


@pytest.mark.parametrize(("what", "verdict"), [("stubs", "Not tried yet"), ("solutions", "Right")])
@every_lesson
def test_a_stub_left_alone_is_not_tried_yet_and_a_solution_is_right(lesson, twice, what, verdict):
    said = getattr(twice, what)
    assert len(said) == len(exercises(read(lesson))), "\n".join(twice.problems)
    for number, text in said.items():
        assert text.startswith(verdict), f"exercise {number}: {text}"


@every_lesson
def test_wrong_answers_get_a_hint(lesson, twice):
    assert len(twice.wrong) == len(exercises(read(lesson))), "\n".join(twice.problems)
    for number, said in twice.wrong.items():
        assert len(said) >= 2, f"exercise {number}: two wrong answers go into answers.py"
        for answer, (verdict, text) in said.items():
            assert text.startswith("Not yet: ") and "\nHint: " in text, f"{answer}\n\n{text}"
            assert verdict in text, f"{answer}\n\n{text}"


@every_lesson
def test_runs_on_a_gpt2_with_random_weights_and_no_bos(lesson, second):
    assert not second.problems, "\n".join(second.problems)
