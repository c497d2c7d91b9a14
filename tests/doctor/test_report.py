"""`python -m tutorial_utils`: what it says of this machine, and of machines that lack something."""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import runpy
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub import errors
from packaging.requirements import Requirement

import tiny_models
import tutorial_utils
import tutorial_utils.doctor
from tutorial_utils.doctor import check as doctor_check
from tutorial_utils.doctor import machine as doctor_machine
from tutorial_utils.doctor import model as doctor_model
from tutorial_utils.doctor import report as doctor
from tutorial_utils.doctor.check import Check
from tutorial_utils.doctor.report import check_machine, main, short_report
from tutorial_utils.models import load as models
from tutorial_utils.models import memory

VERSIONS = {"torch": "2.13.0+cpu", "numpy": "2.1.0", "jupyterlab": "4.6.1", "ipywidgets": "8.1.9"}
LASTING = {box: pattern for box, _, pattern in doctor_machine.BOXES}  # before a test changes them
BOXES = ("RUNPOD_POD_ID", "COLAB_RELEASE_TAG", "VSCODE_PID", "CUDA_VISIBLE_DEVICES")
# As published for meta-llama/Llama-3.1-8B.
LLAMA = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_models.make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def a_good_machine(llama, monkeypatch):
    """A machine with all that is needed; each test takes something away."""
    monkeypatch.setattr(models, "POCKET_LLAMA", llama)
    monkeypatch.setattr(doctor_model, "top_tokens", lambda *args: [(" McDonald", 0.99)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(memory, "free_memory", lambda device: 8 * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 2**40))
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.setattr(doctor_machine, "_manager", lambda: "5.0.16")
    monkeypatch.setattr(doctor_machine, "BOXES", doctor_machine.BOXES[:2])  # told by a variable
    for variable in BOXES:
        monkeypatch.delenv(variable, raising=False)
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
    for module in (doctor, doctor_check):
        monkeypatch.setattr(module, "metadata", SimpleNamespace(**told))


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
        "widgets",
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
    monkeypatch.setattr(sys, "argv", ["tutorial_utils"])
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


WHEELS = "--index-url https://download.pytorch.org/whl/"


@pytest.mark.parametrize(
    ("cuda", "driver", "why", "todo"),
    [
        (None, "12.4", "built for the CPU only", f"torch {WHEELS}cu124`"),
        (None, "12.5", "built for the CPU only", f"torch {WHEELS}cu124`"),
        (None, None, "built for the CPU only", f"torch {WHEELS}cu130`"),
        ("13.0", "12.4", "its driver goes up to CUDA 12.4", f"torch {WHEELS}cu124`"),
        ("12.8", "12.4", "its driver does not answer", "`nvidia-smi` says"),
        ("12.8", None, "its driver does not answer", "`nvidia-smi` says"),
    ],
)
def test_a_gpu_that_torch_does_not_use(cuda, driver, why, todo, monkeypatch):
    text = f"| NVIDIA-SMI 550.54    Driver Version: 550.54    CUDA Version: {driver}   |"
    told = SimpleNamespace(stdout=text if driver else "NVIDIA-SMI has failed")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: told)
    a_gpu_beside_the_cpu(cuda, monkeypatch)
    check = doctor_machine.device()
    assert check.state == "warning" and todo in check.todo
    assert check.found.startswith("cpu, float32; torch is built for ") and why in check.found


def a_gpu_beside_the_cpu(cuda, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_a_variable_hides(hidden, monkeypatch):
    a_gpu_beside_the_cpu("12.8", monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert find("device").todo == "`unset CUDA_VISIBLE_DEVICES`"


def test_no_gpu_at_all_is_no_warning(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has an NVIDIA driver")
    assert find("device").state == "ok"


def test_gpus_are_named_with_their_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    free = {"cpu": 8 * 2**30, "cuda:0": 20 * 2**30, "cuda:1": 2**20}
    monkeypatch.setattr(memory, "free_memory", free.__getitem__)
    monkeypatch.setattr(doctor_model, "load_model", lambda name: (None, None))
    monkeypatch.setattr(doctor_model, "next_token_probs", lambda *args: [None])
    assert find("device").found == "cuda:0 (Some GPU), bfloat16; torch is built for CUDA 12.8"
    assert (find("GPU 0").state, find("GPU 0").found) == ("ok", "20 GiB free")
    assert (find("GPU 1").state, find("GPU 1").found) == ("warning", "0 GiB free")


def test_a_full_disk(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 2**30))
    assert find("disk for models").state == "warning" and "HF_HOME" in find("disk for models").todo


@pytest.mark.parametrize(
    ("variable", "cache", "state", "found", "todo"),
    [
        ("RUNPOD_POD_ID", "/workspace/huggingface/hub", "ok", "outlives a stop of this RunPod", ""),
        ("RUNPOD_POD_ID", "/root/.cache/hub", "warning", "is lost", "HF_HOME=/workspace/"),
        ("COLAB_RELEASE_TAG", "/root/.cache/hub", "warning", "is lost", "%env HF_HOME=/content/"),
    ],
)
def test_a_disk_that_may_not_outlive_a_stop(variable, cache, state, found, todo, monkeypatch):
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", cache)
    check = find("that disk")
    assert check.state == state and found in check.found and todo in check.todo


def test_a_box_whose_lasting_disks_have_names(tmp_path, monkeypatch):
    """On Lambda the folder of the filesystems is on the disk that is lost, what is in it is not."""
    assert LASTING["Lambda"] == "/lambda/nfs/*"
    monkeypatch.setattr(doctor_machine, "BOXES", [("Lambda", lambda: True, f"{tmp_path}/nfs/*")])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "nfs/hub"))
    assert f"HF_HOME={tmp_path}/nfs/NAME/" in find("that disk").todo  # none was attached
    (tmp_path / "nfs/weights").mkdir(parents=True)
    assert find("that disk").state == "warning"
    assert f"`export HF_HOME={tmp_path}/nfs/weights/huggingface`" in find("that disk").todo
    cache = str(tmp_path / "nfs/weights/huggingface/hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", cache)
    assert (find("that disk").state, find("that disk").todo) == ("ok", "")


@pytest.mark.parametrize(
    ("manager", "ipywidgets", "state", "found"),
    [
        ("5.0.16", "8.1.9", "ok", "5.0.16"),
        ("3.1.9", "7.7.5", "ok", "7.7.5"),
        ("3.1.9", "8.1.9", "warning", "do not fit together"),
        ("5.0.16", "7.7.5", "warning", "do not fit together"),
        (None, "8.1.9", "warning", "lacks the part that draws them"),
    ],
)
def test_whether_widgets_will_show(manager, ipywidgets, state, found, monkeypatch):
    monkeypatch.setattr(doctor_machine, "_manager", lambda: manager)
    installed(monkeypatch, ipywidgets=ipywidgets)
    check = find("widgets")
    assert check.state == state and found in check.found
    assert ("pip install" in check.todo) == (state == "warning")


def test_widgets_where_another_program_draws_them(monkeypatch):
    installed(monkeypatch, jupyterlab=None)
    assert find("widgets").found.endswith("drawn by the editor that you use")
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-1")
    assert find("widgets").found == "drawn by Colab itself"


def test_the_part_that_draws_widgets_is_found_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    folder = tmp_path / "labextensions/@jupyter-widgets/jupyterlab-manager"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text('{"version": "5.9.9"}')
    assert doctor_machine._manager() == "5.9.9"


def test_for_scripts(capsys, monkeypatch, tmp_path):
    assert main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ready"] is True and told["checks"][0]["what"] == "Python"
    monkeypatch.setattr(models, "POCKET_LLAMA", tmp_path)
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
    assert short_report(checks).endswith("Problems: 1. What to do is next to ->.")


def test_a_shipped_model_that_answers_something_else(monkeypatch):
    monkeypatch.setattr(doctor_model, "top_tokens", lambda *args: [(" the", 0.2)])
    check = find("shipped model")
    assert check.state == "warning" and 'goes on with " the"' in check.found


def test_the_series_on_another_model(llama, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_MODEL", str(llama))
    assert find("TUTORIAL_MODEL") == ("TUTORIAL_MODEL", "ok", f"{llama}, on this machine", "")
    assert "parameters" in find("does it fit").found and find("does it fit").state == "ok"
    assert find("chat template").found == "none: this is a base model"
    for bad in (str(tmp_path), "not a/name", "some/model"):  # the tests have no network
        monkeypatch.setenv("TUTORIAL_MODEL", bad)
        check = find("TUTORIAL_MODEL")
        assert check.state == "problem" and "unset TUTORIAL_MODEL" in check.todo


def refusal(kind):
    """An error of the hub as its library raises it, without an answer of the hub."""
    error = kind.__new__(kind)
    Exception.__init__(error, "no")
    return error


@pytest.mark.parametrize(
    ("error", "found", "todo"),
    [
        (errors.GatedRepoError, "is gated", "ask for access at https://huggingface.co/some/model"),
        (errors.RepositoryNotFoundError, "there is no model", "unset TUTORIAL_MODEL"),
        (errors.HfHubHTTPError, "could not be fetched", "`hf auth login`"),
    ],
)
def test_access_that_is_not_granted(error, found, todo, monkeypatch):
    def refuse(self, name):
        raise refusal(error)

    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", refuse)
    monkeypatch.setenv("TUTORIAL_MODEL", "some/model")
    check = find("TUTORIAL_MODEL")
    assert check.state == "problem" and found in check.found and todo in check.todo


@pytest.fixture
def llama_on_the_hub(monkeypatch):
    """Llama-3.1-8B, of which nothing but the configuration is ever asked for."""
    config = transformers.LlamaConfig(**LLAMA)
    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", lambda self, name: None)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *a, **kw: config)
    monkeypatch.setenv("TUTORIAL_MODEL", "meta-llama/Llama-3.1-8B")
    monkeypatch.setattr(doctor, "check_machine", None)  # the shipped model would get it, too


@pytest.mark.parametrize(
    ("free", "disk", "state", "found"),
    [
        (40, 100, "ok", "8,030,261,248 parameters, 29.9 GiB in float32; it fits on cpu"),
        (20, 100, "problem", "there is not enough memory"),
        (40, 20, "problem", "the disk for models has less"),
    ],
)
def test_whether_it_fits_before_it_is_downloaded(
    free, disk, state, found, llama_on_the_hub, monkeypatch
):
    from tutorial_utils.doctor.model import chosen_model

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(memory, "free_memory", lambda device: free * 2**30)
    usage = shutil._ntuple_diskusage(0, 0, disk * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    checks = {check.what: check for check in chosen_model()}
    assert checks["TUTORIAL_MODEL"].found.endswith("downloaded when it is first loaded")
    assert checks["does it fit"].state == state and found in checks["does it fit"].found
    assert bool(checks["does it fit"].todo) == (state == "problem")


@pytest.mark.parametrize(("start", "state"), [("{{ bos_token }}", "warning"), ("", "ok")])
def test_a_second_bos_from_a_chat_template(start, state, tmp_path, monkeypatch):
    folder = tiny_models.make_llama(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = start + "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    monkeypatch.setenv("TUTORIAL_MODEL", str(folder))
    check = find("chat template")
    assert check.state == state and ("add_special_tokens=False" in check.todo) == bool(start)


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
