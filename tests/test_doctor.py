"""`python -m tutorial_utils`: what it says of this machine, and of machines that lack something."""

from __future__ import annotations

import ast
import builtins
import inspect
import runpy
import shutil
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement

import tiny_models
from tutorial_utils import decoding, doctor, memory, models
from tutorial_utils.doctor import Check, check_machine, main

VERSIONS = {"torch": "2.13.0+cpu", "numpy": "2.1.0", "jupyterlab": "4.6.1"}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_models.make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def a_good_machine(llama, monkeypatch):
    """A machine with all that is needed; each test takes something away."""
    monkeypatch.setattr(models, "POCKET_LLAMA", llama)
    monkeypatch.setattr(decoding, "top_tokens", lambda *args: [(" McDonald", 0.99)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(memory, "free_memory", lambda device: 8 * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 2**40))
    monkeypatch.setattr(shutil, "which", lambda program: None)
    installed(monkeypatch)


def installed(monkeypatch, python=">=3.10", requires=("torch>=2.4,<3", "numpy>=1.26"), **versions):
    """Pretend that these are the installed versions (None: not there) and what they should be."""
    versions = {**VERSIONS, **versions}

    def version(name):
        if versions.get(name) is None:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    told = {
        "metadata": lambda name: {"Requires-Python": python},
        "requires": lambda name: list(requires),
        "version": version,
        "PackageNotFoundError": metadata.PackageNotFoundError,
    }
    monkeypatch.setattr(doctor, "metadata", SimpleNamespace(**told))


def find(what: str) -> Check:
    [check] = [check for check in check_machine() if check.what == what]
    return check


def test_a_good_machine(capsys):
    checks = check_machine()
    assert [check.what for check in checks] == [
        "Python",
        "torch",
        "numpy",
        "jupyterlab",
        "device",
        "memory",
        "disk for models",
        "shipped model",
        "TUTORIAL_MODEL",
    ]
    assert {check.state for check in checks} == {"ok"} and not any(c.todo for c in checks)
    assert find("torch").found == "2.13.0+cpu"
    assert find("shipped model").found.endswith('goes on with " McDonald" (probability 0.99)')
    assert main() == 0
    text = capsys.readouterr().out
    assert "The series runs here." in text and "->" not in text
    assert len(text.splitlines()) == len(checks) + 2


def test_a_problem_is_told_and_the_exit_code_is_1(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "POCKET_LLAMA", tmp_path)
    with pytest.raises(SystemExit) as end:
        runpy.run_module("tutorial_utils", run_name="__main__")
    assert end.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    [line] = [i for i, text in enumerate(lines) if text.startswith("problem")]
    assert "shipped model" in lines[line] and "make pocket-llama" in lines[line]
    assert "-> run `make lab`" in lines[line + 1]
    assert lines[-1].startswith("Problems: 1.")


def test_a_warning_alone_leaves_the_exit_code_0(monkeypatch, capsys):
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**29)
    assert find("memory").state == "warning"
    assert main() == 0


def test_the_ranges_are_those_of_the_installed_package(monkeypatch):
    monkeypatch.setattr(doctor, "metadata", metadata)
    try:
        requires = metadata.requires("tutorial_utils")
    except metadata.PackageNotFoundError:
        pytest.skip("run from its folder, not installed")
    names = [Requirement(text).name for text in requires]
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
def test_a_package_that_is_too_old_too_new_or_missing(requires, found, monkeypatch):
    installed(monkeypatch, requires=[requires, "other; extra == 'docs'"])
    [check] = [check for check in check_machine() if check.what in requires]
    assert (check.state, check.found) == ("problem", found)
    assert "pip install -r requirements.txt" in check.todo
    assert not [check for check in check_machine() if check.what == "other"]


def test_a_python_that_is_too_old(monkeypatch):
    installed(monkeypatch, python=">=4")
    assert find("Python").state == "problem" and "needs >=4" in find("Python").found


def test_a_package_that_was_never_installed(monkeypatch):
    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    doctor.metadata.metadata = nothing
    doctor.metadata.version = nothing
    assert find("packages").state == "warning"
    assert find("packages").found == "not checked: tutorial_utils is not installed"


def test_no_jupyterlab(monkeypatch):
    installed(monkeypatch, jupyterlab=None)
    assert find("jupyterlab").state == "warning" and "pip install" in find("jupyterlab").todo


def test_no_torch(monkeypatch):
    real = builtins.__import__

    def no_torch(name, *args, **kwargs):
        if name == "torch":
            raise ImportError("libtorch_cuda.so: cannot open shared object file")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_torch)
    last = check_machine()[-1]
    assert (last.what, last.state) == ("imports", "problem")
    assert "libtorch_cuda.so" in last.found and last.todo


@pytest.mark.parametrize(
    ("cuda", "todo"), [(None, "torch's build for CUDA"), ("12.8", "update the GPU's driver")]
)
def test_a_gpu_that_torch_does_not_use(cuda, todo, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    check = find("device")
    assert check.state == "warning" and todo in check.todo
    assert check.found.startswith("cpu, float32; torch is built for ")


def test_gpus_are_named_with_their_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    free = {"cpu": 8 * 2**30, "cuda:0": 20 * 2**30, "cuda:1": 2**20}
    monkeypatch.setattr(memory, "free_memory", free.__getitem__)
    monkeypatch.setattr(models, "load_model", lambda name: (None, None))
    monkeypatch.setattr(decoding, "next_token_probs", lambda *args: [None])
    assert find("device").found == "cuda:0 (Some GPU), bfloat16; torch is built for CUDA 12.8"
    assert (find("GPU 0").state, find("GPU 0").found) == ("ok", "20 GiB free")
    assert (find("GPU 1").state, find("GPU 1").found) == ("warning", "0 GiB free")


def test_a_full_disk(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 2**30))
    assert find("disk for models").state == "warning" and "HF_HOME" in find("disk for models").todo


def test_a_shipped_model_that_answers_something_else(monkeypatch):
    monkeypatch.setattr(decoding, "top_tokens", lambda *args: [(" the", 0.2)])
    check = find("shipped model")
    assert check.state == "warning" and 'goes on with " the"' in check.found


def test_the_series_on_another_model(llama, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_MODEL", str(llama))
    assert find("TUTORIAL_MODEL") == ("TUTORIAL_MODEL", "ok", f"{llama}, on this machine", "")
    monkeypatch.setenv("TUTORIAL_MODEL", "some/model")
    assert find("TUTORIAL_MODEL").found == "some/model, downloaded when it is first loaded"
    for bad in (str(tmp_path), "not a/name"):
        monkeypatch.setenv("TUTORIAL_MODEL", bad)
        check = find("TUTORIAL_MODEL")
        assert check.state == "problem" and "unset TUTORIAL_MODEL" in check.todo


def test_the_report_reads_well_line_by_line():
    assert str(Check("Python", "ok", "3.11.7")) == "ok       Python          3.11.7"
    lines = str(Check("torch", "problem", "not installed", "install it")).splitlines()
    assert lines[1].strip() == "-> install it" and lines[1].index("->") == lines[0].index("not")


def test_torch_is_not_needed_to_say_that_it_is_missing():
    """At its top, the module imports the standard library only."""
    imports = [n for n in ast.parse(inspect.getsource(doctor)).body if hasattr(n, "names")]
    names = {getattr(n, "module", None) or n.names[0].name for n in imports}
    assert names and {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)
