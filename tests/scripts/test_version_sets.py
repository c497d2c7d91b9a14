"""The sets of versions that `make test-versions` runs on. No environment is made here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import project_file
import version_sets


def test_the_oldest_set_has_a_lower_bound_to_go_by_for_every_package():
    for wanted in project_file.requirements():
        assert [s.version for s in wanted.specifier if s.operator == ">="], wanted
    assert version_sets.SETS["oldest"] == ["--resolution", "lowest-direct"]
    lowest = {wanted.name: wanted.specifier for wanted in project_file.requirements()}
    assert lowest["transformers"].contains("4.51"), "before 4.54, layers return tuples"


def test_the_set_between_is_in_the_ranges():
    admitted = {wanted.name: wanted.specifier for wanted in project_file.requirements()}
    for pin in map(Requirement, version_sets.SETS["between"]):
        version = str(pin.specifier).removeprefix("==").replace("*", "0")
        assert admitted[pin.name].contains(version)


@pytest.fixture
def commands(monkeypatch):
    """What would be run; a command with "fails" in it fails."""
    ran = []

    def run(command, **options):
        ran.append([str(part) for part in command])
        code = int("fails" in ran[-1])
        if code and options.get("check"):
            raise subprocess.CalledProcessError(code, command)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(version_sets.subprocess, "run", run)
    monkeypatch.setattr(version_sets, "cpu_index_answers", lambda: False)
    return ran


@pytest.mark.parametrize("answers", [True, False])
def test_a_set_is_made_with_and_without_pytorchs_index(answers, commands, monkeypatch):
    monkeypatch.setattr(version_sets, "cpu_index_answers", lambda: answers)
    monkeypatch.setenv("TEST_PYTHON_OLDEST", "python3.11")
    version_sets.make("oldest")
    assert "python3.11" in commands[0]
    assert ("--torch-backend" in commands[1]) == answers
    assert commands[1][-4:] == ["-r", "requirements.txt", "--resolution", "lowest-direct"]


def test_a_set_that_cannot_be_made_is_told_and_the_next_one_runs(commands, monkeypatch, capsys):
    monkeypatch.setenv("TEST_PYTHON_OLDEST", "fails")
    monkeypatch.setattr(sys, "argv", ["", "oldest", "between", "tests/test_a.py"])
    assert version_sets.main() == 1
    assert "The set 'oldest' could not be made" in capsys.readouterr().out
    assert commands[-1][-1] == "tests/test_a.py"
    assert str(Path(".versions/between")) in commands[-1][0]


@pytest.mark.parametrize(("tested", "status"), [("tests/test_a.py", 0), ("fails", 1)])
def test_a_failed_test_makes_the_run_fail(tested, status, commands, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["", "newest", tested])
    assert version_sets.main() == status
