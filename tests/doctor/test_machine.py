"""What the doctor says of GPUs, memory, disks and widgets."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants

from tutorial_utils.doctor import machine
from tutorial_utils.doctor.check import Check

BOXES = {box: pattern for box, _, pattern in machine.BOXES}  # before a test changes them


def one(checks: Iterable[Check], what: str = "") -> Check:
    """The one line about something."""
    [check] = [check for check in checks if what in ("", check.what)]
    return check


def smi(monkeypatch, stdout: str, returncode: int = 0) -> None:
    """Make nvidia-smi answer this."""
    told = SimpleNamespace(stdout=stdout, returncode=returncode)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: told)


def a_gpu_beside_the_cpu(cuda, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")


@pytest.mark.parametrize(
    ("cuda", "driver", "why", "todo"),
    [
        (None, "12.4", "built for the CPU only", "--reinstall torch --torch-backend=auto`"),
        ("13.0", "12.4", "its driver supports CUDA up to 12.4", "--torch-backend=auto`"),
        ("12.8", "12.4", "new enough (CUDA 12.4), but torch can't reach it", "torch.cuda.init()"),
        ("13.0", "13.3", "new enough (CUDA 13.3), but torch can't reach it", "torch.cuda.init()"),
        ("12.8", None, "its driver does not answer", "`nvidia-smi` says"),
        ("13.0", "?", "the reason is unknown", "new enough for CUDA 13.0"),
    ],
)
@pytest.mark.parametrize("name", ["CUDA Version", "CUDA UMD Version"])
def test_a_gpu_that_torch_does_not_use(cuda, driver, why, todo, name, monkeypatch):
    line = f"| NVIDIA-SMI 550.54    Driver Version: 550.54    {name}: {driver}   |"
    smi(monkeypatch, *([line] if driver else ["NVIDIA-SMI has failed", 9]))
    a_gpu_beside_the_cpu(cuda, monkeypatch)
    check = one(machine.device())
    assert check.state == "warning" and todo in check.todo
    assert check.found.startswith("cpu, float32; torch is built for ") and why in check.found


@pytest.mark.parametrize(
    "error", [FileNotFoundError(), subprocess.TimeoutExpired("nvidia-smi", 20)]
)
def test_an_nvidia_smi_that_does_not_answer(error, monkeypatch):
    def run(*args, **kwargs):
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    assert machine._driver() is None


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_a_variable_hides(hidden, monkeypatch):
    a_gpu_beside_the_cpu("12.8", monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert one(machine.device()).todo == "`unset CUDA_VISIBLE_DEVICES`"


def test_no_gpu_at_all_is_no_warning(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has an NVIDIA driver")
    assert one(machine.device()).state == "ok"


@pytest.fixture
def gpu(monkeypatch) -> Callable[..., None]:
    """Pretend that there are GPUs of some capability and a torch that was built for others."""

    def pretend(capability=(8, 6), built="sm_80 sm_86 compute_90", count=1):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", built.split)
        monkeypatch.setattr(torch.version, "cuda", "12.8")

    return pretend


def test_gpus_are_named_with_their_free_memory(gpu, monkeypatch):
    gpu(count=2)
    free = {"cpu": 8 * 2**30, "cuda:0": 20 * 2**30, "cuda:1": 2**20}
    monkeypatch.setattr(machine, "free_memory", free.__getitem__)
    found = "cuda:0 (Some GPU), bfloat16; torch is built for CUDA 12.8"
    assert one(machine.device()) == ("device", "ok", found, "")
    assert one(machine.memory(), "GPU 0") == ("GPU 0", "ok", "20 GiB free", "")
    second = one(machine.memory(), "GPU 1")
    assert (second.state, second.found) == ("warning", "0 GiB free") and second.todo


@pytest.mark.parametrize(
    ("capability", "built", "todo"),
    [
        ((8, 9), "sm_80 sm_90", ""),  # machine code for 8.0 runs on 8.9
        ((9, 0), "sm_80 compute_80", ""),  # the driver compiles what is newer
        ((9, 0), "sm_90a", ""),
        ((10, 3), "sm_100f", ""),
        ((9, 4), "gfx90a gfx942", ""),  # ROCm
        ((8, 0), "", ""),  # a torch that does not tell
        ((12, 0), "sm_80 sm_90", "--torch-backend=auto`"),
        ((10, 3), "sm_100a", "--torch-backend=auto`"),
        ((8, 0), "sm_86 compute_86", "whl/cu126` supports older GPUs"),
        ((6, 1), "sm_75 sm_80 sm_90 compute_90", "whl/cu126` supports older GPUs"),
    ],
)
def test_a_torch_without_kernels_for_the_gpu(capability, built, todo, gpu):
    gpu(capability, built)
    check = one(machine.device())
    assert check.state == ("problem" if todo else "ok") and todo in check.todo
    number = "compute capability {}.{}".format(*capability)
    why = f"is built for CUDA 12.8, but not for this GPU ({number}), only for {built}"
    assert check.found.endswith(why) == bool(todo)


def test_a_full_disk(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 2**30))
    check = one(machine.disk())
    assert check.state == "warning" and "HF_HOME" in check.todo


@pytest.mark.parametrize(
    ("variable", "cache", "state", "found", "todo"),
    [
        (
            "RUNPOD_POD_ID",
            "/workspace/huggingface/hub",
            "ok",
            "models are kept when this RunPod",
            "",
        ),
        ("RUNPOD_POD_ID", "/root/.cache/hub", "warning", "are lost", "HF_HOME=/workspace/"),
        ("COLAB_RELEASE_TAG", "/root/.cache/hub", "warning", "are lost", "%env HF_HOME=/content/"),
    ],
)
def test_a_disk_that_may_not_outlive_a_stop(variable, cache, state, found, todo, monkeypatch):
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
    check = one(machine.disk(), "disk of the box")
    assert check.state == state and found in check.found and todo in check.todo


def test_a_box_whose_lasting_disks_have_names(tmp_path, monkeypatch):
    """On Lambda the folder of the filesystems is on the disk that is lost, what is in it is not."""
    assert BOXES["Lambda"] == "/lambda/nfs/*"
    monkeypatch.setattr(machine, "BOXES", [("Lambda", lambda: True, f"{tmp_path}/nfs/*")])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "nfs/hub"))
    none_attached = one(machine.disk(), "disk of the box")
    assert f"HF_HOME={tmp_path}/nfs/NAME/" in none_attached.todo
    (tmp_path / "nfs/weights").mkdir(parents=True)
    beside = one(machine.disk(), "disk of the box")
    assert beside.state == "warning"
    assert f"`export HF_HOME={tmp_path}/nfs/weights/huggingface`" in beside.todo
    cache = str(tmp_path / "nfs/weights/huggingface/hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
    inside = one(machine.disk(), "disk of the box")
    assert (inside.state, inside.todo) == ("ok", "")


@pytest.mark.parametrize(
    ("manager", "ipywidgets", "state", "found"),
    [
        ("3.0.16", "8.1.9", "ok", "3.0.16"),
        ("1.1.11", "7.7.5", "ok", "7.7.5"),
        ("1.1.11", "8.1.9", "warning", "do not fit together"),
        ("3.0.16", "7.7.5", "warning", "do not fit together"),
        (None, "8.1.9", "warning", "lacks the extension that draws them"),
    ],
)
def test_whether_widgets_will_show(manager, ipywidgets, state, found, installed):
    installed(ipywidgets=ipywidgets, jupyterlab_widgets=manager)
    check = one(machine.widgets())
    assert check.state == state and found in check.found
    assert ("pip install" in check.todo) == (state == "warning")


def test_widgets_where_another_program_draws_them(installed, monkeypatch):
    installed(jupyterlab=None)
    assert one(machine.widgets()).found == "drawn by your editor"
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-1")
    assert one(machine.widgets()).found == "drawn by Colab"
