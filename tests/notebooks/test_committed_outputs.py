"""The lessons as they are committed: outputs of the code above them, and nothing of the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

import committed_outputs
from notebook_tools import LESSONS, NOTEBOOKS, ROOT, read


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", committed_outputs.RULES, ids=lambda rule: rule.__name__)
def test_lesson(rule, lesson):
    problems = list(rule(read(lesson)))
    assert not problems, "\n".join([*problems, f"Run: make notebooks  ({lesson.name})"])


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    """Notebooks and scripts alike, by the settings in pyproject.toml."""
    ruff = [sys.executable, "-m", "ruff", *command, "."]
    result = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_notebook_is_a_lesson():
    """A file whose name does not start with a number would be tested by nothing."""
    assert sorted(NOTEBOOKS.glob("*.ipynb")) == LESSONS
