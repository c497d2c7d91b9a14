"""Right and wrong answers to the exercises, as a learner types them, for all tests of the checks.

They stand in `tests/lessons/TOPIC/answers.py`. A line like `# %% check_rank(rank)`, the call in the
lesson's check cell, starts an exercise. What comes first makes what the lesson has made by then,
and `# %% or` something else to try all answers with. Then come the answers, each with a comment
that says what the check must say: `#: Right`, or a part of its verdict. The first two wrong ones
are also typed into the lesson (lesson_runs.py). Before all others comes the lesson's own solution,
read from the notebook; in the table it is called `right`.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import math
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lesson_contract
from notebook_tools import LESSONS, read

TABLES = sorted(Path(__file__).parent.glob("lessons/*/answers.py"))
PART = re.compile(r"^# %% (.+)\n", re.M)
VERDICT = re.compile(r" *#: (.+)$")  # ends the first line of an answer, or is the line above it


@dataclass
class Exercise:
    """A check, what the lesson gives it, and answers by what the check must say of them."""

    topic: str
    call: str
    givens: list[str] = field(default_factory=list)  # each answer is tried with each of them
    right: list[str] = field(default_factory=list)  # the lesson's solution comes first
    wrong: list[tuple[str, str]] = field(default_factory=list)  # a part of the verdict, the answer

    @property
    def name(self) -> str:
        """What the answer defines: the check's first argument."""
        return re.split(r"[(,)]", self.call)[1]

    @property
    def is_function(self) -> bool:
        return f"def {self.name}(" in self.right[0]


def check_of(call: str) -> str:
    """The check's name in a call, or in a lesson's check cell."""
    found = re.search(r"\b(check_\w+)\(", call)
    return found.group(1) if found else ""


def _read() -> dict[str, Exercise]:
    exercises: list[Exercise] = []
    solutions = {
        check_of(check.source): solution
        for lesson in LESSONS
        for _, check, solution in lesson_contract.exercises(read(lesson))
    }
    for path in TABLES:
        _, *parts = PART.split(path.read_text(encoding="utf-8"))
        for title, text in zip(parts[::2], parts[1::2], strict=True):
            if title != "or":
                exercise = Exercise(path.parent.name, title)
                exercise.right.append(_solution(exercise.name, solutions[check_of(title)]))
                exercises.append(exercise)
            given, *answers = _split(text)
            exercises[-1].givens.append(given[1])
            exercises[-1].right += [answer for verdict, answer in answers if verdict == "Right"]
            exercises[-1].wrong += [pair for pair in answers if pair[0] != "Right"]
    return {check_of(exercise.call): exercise for exercise in exercises}


def _solution(name: str, source: str) -> str:
    """The statement of a lesson's solution that makes the answer; others may try it out."""
    for node in ast.parse(source).body:
        targets = ast.walk(node.targets[0]) if isinstance(node, ast.Assign) else [node]
        if name in [getattr(target, "id", getattr(target, "name", "")) for target in targets]:
            return ast.unparse(node)
    raise ValueError(f"the lesson's solution makes no {name}:\n{source}")


def _split(text: str) -> list[tuple[str, str]]:
    """What comes first, with no verdict, and each answer with its verdict."""
    found = [("", "")]
    for line in text.strip().split("\n"):
        verdict = VERDICT.search(line)
        if verdict:
            found.append((verdict.group(1), ""))
        title, before = found[-1]
        found[-1] = (title, f"{before}\n{VERDICT.sub('', line)}".strip("\n"))
    return found


EXERCISES = _read()


@functools.cache
def model(name: str) -> Any:
    """A model and its tokenizer, for what a lesson gives: "pocket-llama", or a tiny one."""
    import tiny_models
    from tutorial_utils import load_model

    make = {"llama": tiny_models.make_llama, "gpt2": tiny_models.make_gpt2}.get(name)
    folder = str(make(Path(tempfile.mkdtemp()) / name)) if make else name
    return load_model(folder, device="cpu")


def said(exercise: Exercise, answer: str, given: str) -> str:
    """What the check says of an answer, in which the solution is called `right`."""
    import torch

    from tutorial_utils.lessons import checks

    names: dict[str, Any] = {"math": math, "torch": torch, "load": model, **vars(checks)}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for source in (given, exercise.right[0], answer, exercise.call):
            exec(compile(source, "<answer>", "exec"), names)
            if source == exercise.right[0]:
                names["right"] = names[exercise.name]
    return out.getvalue()
