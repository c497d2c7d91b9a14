"""`python -m tutorial_utils`: the report, its verdict, and the versions of what is installed."""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import runpy
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement

import tutorial_utils.doctor
from tutorial_utils.doctor import check as doctor_check
from tutorial_utils.doctor import machine
from tutorial_utils.doctor import report as doctor
from tutorial_utils.doctor.check import Check
from tutorial_utils.doctor.report import check_machine, main, short_report
from tutorial_utils.models import load


def test_a_good_machine(capsys, find):
    checks = check_machine()
    machine = ["Python", "torch", "numpy", "jupyterlab", "device", "memory", "disk for models"]
    models = ["shipped model", "TUTORIAL_MODEL"]
    assert [check.what for check in checks] == [*machine, "widgets", *models]
    assert {check.state for check in checks} == {"ok"} and not any(c.todo for c in checks)
    assert find("torch").found == "2.13.0+cpu"
    assert find("shipped model").found.endswith('goes on with " McDonald" (probability 0.99)')
    assert main() == 0
    text = capsys.readouterr().out
    assert "The series runs here." in text and "->" not in text
    assert len(text.splitlines()) == len(checks) + 2


def test_a_problem_is_told_and_the_exit_code_is_1(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "POCKET_LLAMA", tmp_path)
    monkeypatch.setattr(sys, "argv", ["tutorial_utils"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("tutorial_utils", run_name="__main__")
    assert end.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    [line] = [i for i, text in enumerate(lines) if text.startswith("problem")]
    assert "shipped model" in lines[line] and "make pocket-llama" in lines[line]
    assert "-> run `make lab`" in lines[line + 1]
    assert lines[-1].startswith("Problems: 1.")


def test_a_warning_alone_leaves_the_exit_code_0(monkeypatch, capsys, find):
    monkeypatch.setattr(machine, "free_memory", lambda device: 2**29)
    assert find("memory").state == "warning"
    assert main() == 0


def test_the_ranges_are_those_of_the_installed_package(monkeypatch):
    for module in (doctor, doctor_check):
        monkeypatch.setattr(module, "metadata", metadata)
    try:
        requires = metadata.requires("tutorial_utils")
    except metadata.PackageNotFoundError:
        pytest.skip("run from its folder, not installed")
    needed = [Requirement(text) for text in requires]
    names = [requirement.name for requirement in needed if requirement.marker is None]
    assert {"torch", "transformers", "accelerate", "matplotlib", "ipywidgets"} <= set(names)
    assert [c.what for c in check_machine() if c.what in names] == names


@pytest.mark.parametrize(
    ("requires", "found"),
    [
        ("torch>=2.14", "2.13.0+cpu (needs >=2.14)"),
        ("torch<2.13", "2.13.0+cpu (needs <2.13)"),
        ("nosuch-package>=1", "not installed (needs >=1)"),
    ],
)
def test_a_package_that_is_too_old_too_new_or_missing(requires, found, installed):
    installed(requires=[requires, "other; extra == 'docs'"])
    [check] = [check for check in check_machine() if check.what in requires]
    assert (check.state, check.found) == ("problem", found)
    assert "pip install -r requirements.txt" in check.todo
    assert not [check for check in check_machine() if check.what == "other"]


def test_a_python_that_is_too_old(find, installed):
    installed(python=">=4")
    assert find("Python").state == "problem" and "needs >=4" in find("Python").found


def test_a_package_that_was_never_installed(find):
    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    doctor.metadata.metadata = nothing
    doctor.metadata.version = nothing
    assert find("packages").state == "warning"
    assert find("packages").found == "not checked: tutorial_utils is not installed"


def test_no_jupyterlab(find, installed):
    installed(jupyterlab=None)
    assert find("jupyterlab").state == "warning" and "pip install" in find("jupyterlab").todo


def test_no_torch(monkeypatch):
    real = builtins.__import__
    monkeypatch.delitem(sys.modules, "tutorial_utils.doctor.machine")
    monkeypatch.delattr(tutorial_utils.doctor, "machine")

    def no_torch(name, *args, **kwargs):
        if name == "torch":
            raise ImportError("libtorch_cuda.so: cannot open shared object file")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_torch)
    last = check_machine()[-1]
    assert (last.what, last.state) == ("imports", "problem")
    assert "libtorch_cuda.so" in last.found and last.todo


def test_for_scripts(capsys, monkeypatch, tmp_path):
    assert main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ready"] is True and told["checks"][0]["what"] == "Python"
    monkeypatch.setattr(load, "POCKET_LLAMA", tmp_path)
    assert main(["--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ready"] is False
    assert [c["what"] for c in told["checks"] if c["state"] == "problem"] == ["shipped model"]
    with pytest.raises(SystemExit) as end:
        main(["--yaml"])
    assert end.value.code == 2


def test_the_short_report():
    checks = [
        Check("Python", "ok", "3.11"),
        Check("device", "ok", "cpu"),
        Check("disk for models", "warning", "0 GiB free", "make room"),
    ]
    lines = short_report(checks).splitlines()
    assert [line.split()[1] for line in lines[:2]] == ["device", "disk"]
    assert lines[-1] == "The series runs here." and "Python" not in lines[0]
    checks.append(Check("shipped model", "problem", "broken", "mend it"))
    assert short_report(checks).endswith("Problems: 1. Each -> says what to do.")


def test_the_report_reads_well_line_by_line():
    assert str(Check("Python", "ok", "3.11.7")) == "ok       Python          3.11.7"
    lines = str(Check("torch", "problem", "not installed", "install it")).splitlines()
    assert lines[1].strip() == "-> install it" and lines[1].index("->") == lines[0].index("not")


def test_torch_is_not_needed_to_say_that_it_is_missing():
    """At their tops, the modules that report it import the standard library and each other only."""
    for module in (doctor, doctor_check):
        imports = [n for n in ast.parse(inspect.getsource(module)).body if hasattr(n, "names")]
        names = {getattr(n, "module", None) or n.names[0].name for n in imports}
        names.discard("tutorial_utils.doctor.check")
        assert names and {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)
