"""The set-up cell gets the package where it is not installed, and can be run twice."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lesson_contract import SETUP


@pytest.mark.parametrize("told", ["git+https://example.org/series", None])
def test_the_package_is_got_once_where_it_is_missing(told, monkeypatch, capsys):
    commands = []

    def install(command, check):
        assert check, "a pip that fails must be seen"
        commands.append(command)
        monkeypatch.delitem(sys.modules, "tutorial_utils")

    monkeypatch.setattr(subprocess, "run", install)
    monkeypatch.setitem(sys.modules, "tutorial_utils", None)  # an import of it raises
    if told:
        monkeypatch.setenv("TUTORIAL_SOURCE", told)
    else:
        monkeypatch.delenv("TUTORIAL_SOURCE", raising=False)
    for _ in range(2):
        exec(SETUP, {})
    assert commands == [[sys.executable, "-m", "pip", "install", "-q", told or ".."]]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1] and "parameters on" in lines[0]


def test_a_pip_that_fails_stops_the_cell(monkeypatch):
    def fail(command, check):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", fail)
    monkeypatch.setitem(sys.modules, "tutorial_utils", None)
    with pytest.raises(subprocess.CalledProcessError):
        exec(SETUP, {})


def test_nothing_is_got_where_it_is_installed(monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", None)
    exec(SETUP, {})
    assert "parameters on" in capsys.readouterr().out
