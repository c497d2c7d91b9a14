"""The sets of versions that `make test-versions` runs on. No environment is made here."""

from __future__ import annotations

import sys

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from notebook_tools import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import test_versions as versions

REQUIREMENTS = (ROOT / "requirements.txt").read_text(encoding="utf-8")


def ranges(text: str) -> dict[str, Requirement]:
    lines = [line for line in text.splitlines() if line.strip() and line[0].isalpha()]
    return {Requirement(line).name: Requirement(line) for line in lines}


def test_the_oldest_set_pins_every_package_to_its_lower_bound():
    pins, admitted = ranges(versions.constraints("oldest")), ranges(REQUIREMENTS)
    assert set(pins) == set(admitted)
    for name, pin in pins.items():
        lowest = next(s.version for s in admitted[name].specifier if s.operator == ">=")
        assert pin.specifier.contains(lowest), f"{name}: {pin} does not take {lowest}"
        number = Version(lowest)
        assert not pin.specifier.contains(f"{number.major}.{number.minor + 1}")


def test_the_oldest_set_has_decoder_layers_that_return_tuples():
    assert Version("4.54") not in ranges(versions.constraints("oldest"))["transformers"].specifier
    assert ranges(REQUIREMENTS)["transformers"].specifier.contains("4.53.3")


@pytest.mark.parametrize("name", ["between", "newest"])
def test_the_other_sets_are_in_the_ranges(name):
    admitted = ranges(REQUIREMENTS)
    for pinned, pin in ranges(versions.constraints(name)).items():
        version = str(pin.specifier).removeprefix("==").replace("*", "0")
        assert admitted[pinned].specifier.contains(version)


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """What would be run to make an environment, which is not made."""
    run = []
    (tmp_path / "oldest").mkdir()
    monkeypatch.setattr(versions, "FOLDER", tmp_path)
    monkeypatch.setattr(versions, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(versions.sys, "platform", "linux")
    monkeypatch.setattr(
        versions.subprocess, "run", lambda command, **_: run.append([*map(str, command)])
    )
    return run


@pytest.mark.parametrize("answers", [True, False])
def test_a_set_is_made_with_and_without_the_index_of_cpu_builds(answers, commands, monkeypatch):
    monkeypatch.setattr(versions, "cpu_index_answers", lambda: answers)
    monkeypatch.setenv("TEST_PYTHON_OLDEST", "python3.10")
    versions.make("oldest")
    assert commands[0][:3] == ["python3.10", "-m", "venv"]
    assert (versions.CPU_INDEX in commands[1]) == answers and "requirements.txt" in commands[1]
    versions.make("oldest")
    assert len(commands) == 2  # it is there already


def test_a_set_that_cannot_be_made_is_told_and_the_next_one_runs(monkeypatch, capsys):
    def make(name):
        if name == "oldest":
            raise versions.subprocess.CalledProcessError(1, "pip")
        return sys.executable

    monkeypatch.setattr(versions, "make", make)
    monkeypatch.setattr(versions, "test", lambda python, tested: ("3 passed", 0))
    monkeypatch.setattr(sys, "argv", ["test_versions.py", "oldest", "between", "tests/test_a.py"])
    assert versions.main() == 1
    text = capsys.readouterr().out
    assert "TEST_PYTHON_OLDEST=python3.11" in text
    rows = [line for line in text.splitlines() if line.startswith("| between ")]
    assert len(rows) == 1 and "| tests/test_a.py | 3 passed |" in rows[0]


def test_what_pytest_says_is_put_in_a_row(capsys, tmp_path):
    test = tmp_path / "test_it.py"
    test.write_text("def test_a(): pass\n\ndef test_b(): assert False\n")
    told, status = versions.test(sys.executable, [str(test), "--rootdir", str(tmp_path)])
    assert (told, status) == ("1 failed, 1 passed", 1)
    test.write_text("")
    assert versions.test(sys.executable, [str(test)]) == ("nothing was run", 5)
