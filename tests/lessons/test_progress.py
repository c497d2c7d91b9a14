"""What the reader has solved is kept in a file, and nothing about the file stops a notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from answers import EXERCISES, said
from notebook_tools import LESSONS, kernel_environment
from tutorial_utils.lessons import passed, progress
from tutorial_utils.lessons.exercise import exercise

SETTLED = EXERCISES["check_settled"]


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    path = tmp_path / "a folder" / "progress.jsonl"
    monkeypatch.setenv("TUTORIAL_PROGRESS", str(path))
    return path


def solve() -> str:
    return said(SETTLED, SETTLED.right[0], SETTLED.givens[0])


def test_what_is_right_is_kept_once(file, capsys):
    assert passed.passed() == {}
    said(SETTLED, SETTLED.wrong[0][1], SETTLED.givens[0])
    assert not file.exists()
    assert solve() == solve()
    assert list(passed.passed()) == ["check_settled"] and file.read_text().count("settled") == 1
    assert progress.main([]) == 0
    shown = capsys.readouterr().out
    assert "the logit lens               1 of 3   settled" in shown
    assert f"1 of {len(EXERCISES)} exercises solved, according to {file}" in shown


def test_the_json_for_a_teacher(capsys):
    solve()
    progress.main(["--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["solved"], told["exercises"]) == (1, len(EXERCISES))
    (checks,) = (x["checks"] for x in told["lessons"] if x["lesson"] == "the logit lens")
    assert checks["rank"] is None and checks["settled"].endswith("+00:00")


@pytest.mark.parametrize("broken", ["", "{", "[1]", '{"check": "check_ra', "\x00\x01", "null\n3"])
def test_a_broken_file_is_mended(file, broken):
    file.parent.mkdir()
    file.write_text(broken)
    assert solve().startswith("Right: ")
    assert list(passed.passed()) == ["check_settled"]


@pytest.mark.parametrize("place", ["folder", "below a file"])
def test_a_file_that_cannot_be_written_stops_nothing(file, monkeypatch, capsys, place):
    file.parent.mkdir()
    file.mkdir() if place == "folder" else file.write_text("")
    monkeypatch.setenv("TUTORIAL_PROGRESS", str(file if place == "folder" else file / "below"))
    assert solve().startswith("Right: ")
    assert progress.main([]) == 1
    assert "TUTORIAL_PROGRESS" in capsys.readouterr().err


def test_no_home_stops_nothing(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(passed, "progress_file", no_home)
    assert solve().startswith("Right: ")


@pytest.mark.parametrize(
    ("system", "variable", "part"),
    [
        ("linux", "XDG_STATE_HOME", "tutorial_utils"),
        ("win32", "LOCALAPPDATA", "tutorial_utils"),
        ("darwin", "HOME", "Application Support"),
    ],
)
def test_it_lies_where_the_system_keeps_such_files(tmp_path, monkeypatch, system, variable, part):
    monkeypatch.delenv("TUTORIAL_PROGRESS")
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv(variable, str(tmp_path))
    file = passed.progress_file()
    assert file.is_relative_to(tmp_path) and part in str(file)


def test_checks_of_others_are_not_kept(file, capsys):
    exercise("that is it.")(lambda answer: None)(3)
    assert capsys.readouterr().out == "Right: that is it.\n" and not file.exists()


def test_the_topics_are_those_of_the_series_in_its_order():
    imports = "tutorial_utils.lessons.checks import"
    found = []
    for lesson in LESSONS:
        text = lesson.read_text(encoding="utf-8")
        found += [e.topic for name, e in EXERCISES.items() if f"{imports} {name}" in text]
    assert list(dict.fromkeys(found)) == list(progress.TOPICS)
    checks = [f"check_{name}" for lesson in progress.lessons() for name in lesson["checks"]]
    assert sorted(checks) == sorted(EXERCISES)


def test_the_command_imports_nothing_heavy(file):
    code = "import sys; from tutorial_utils.lessons import progress; progress.main(['--json']);"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_no_lesson_that_is_tested_writes_to_the_readers_file():
    assert kernel_environment()["TUTORIAL_PROGRESS"] == os.devnull
