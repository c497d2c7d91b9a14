"""The sets of versions that `make test-versions` runs on. No environment is made here."""

from __future__ import annotations

import sys

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from notebook_tools import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import test_versions as versions  # noqa: E402

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


def test_what_pytest_says_is_put_in_a_row(capsys, tmp_path):
    test = tmp_path / "test_it.py"
    test.write_text("def test_a(): pass\n\ndef test_b(): assert False\n")
    told, status = versions.test(sys.executable, [str(test), "--rootdir", str(tmp_path)])
    assert (told, status) == ("1 failed, 1 passed", 1)
    test.write_text("")
    assert versions.test(sys.executable, [str(test)]) == ("nothing was run", 5)
