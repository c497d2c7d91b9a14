"""What the doctor says of the machine: GPU, memory, disk, widgets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import torch
from huggingface_hub import constants

from tutorial_utils.doctor.check import Check, installed
from tutorial_utils.models.load import pick_device, pick_dtype
from tutorial_utils.models.memory import free_memory

# uv knows which builds of torch there are, and picks one for the driver.
INSTALL_TORCH = (
    "`pip install uv`, then "
    f"`uv pip install --python {sys.executable} --reinstall torch --torch-backend=auto`"
)
# How a rented box is recognised, and the folders on it that outlive a stop: docs/gpu-boxes.md says
# where each service tells so. On Lambda, each filesystem that was attached is one folder.
BOXES = [
    ("RunPod", lambda: "RUNPOD_POD_ID" in os.environ, "/workspace"),
    ("Colab", lambda: "COLAB_RELEASE_TAG" in os.environ, "/content/drive/MyDrive"),
    ("Lambda", lambda: Path("/lambda/nfs").is_dir(), "/lambda/nfs/*"),
    ("JarvisLabs", lambda: Path("/home/jl_fs").is_dir(), "/home"),
]


def device() -> Iterator[Check]:
    """The device and the dtype that `load_model` takes, and why a GPU is not used."""
    chosen = pick_device()
    build = torch.version.cuda or torch.version.hip
    kind = f"CUDA {build}" if torch.version.cuda else f"ROCm {build}" if build else "the CPU"
    gpu = f" ({torch.cuda.get_device_name(chosen)})" if chosen.type == "cuda" else ""
    dtype = str(pick_dtype(chosen)).removeprefix("torch.")
    found = f"{chosen}{gpu}, {dtype}; torch is built for {kind}"
    there = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists()
    if chosen.type == "cuda" and (missing := _missing_kernels(chosen)):
        yield Check("device", "problem", f"{found}, {missing[0]}", missing[1])
    elif chosen.type == "cpu" and there:
        why, todo = _why_no_gpu(torch.version.cuda)
        yield Check("device", "warning", f"{found}; the NVIDIA GPU is not used: {why}", todo)
    else:
        yield Check("device", "ok", found)


def _missing_kernels(gpu: torch.device) -> tuple[str, str] | None:
    """What to say where this torch was compiled for other GPUs; None where it has kernels.

    "sm_86" is machine code for GPUs of capability 8.6 to 8.9, "compute_86" code that the driver
    compiles for 8.6 and all newer ones. An "a" behind the number means this capability alone.
    """
    has = torch.cuda.get_device_capability(gpu)
    names = torch.cuda.get_arch_list()
    found = [re.fullmatch(r"(sm|compute)_(\d+)([af]?)", name) for name in names]
    built = [(m[1], divmod(int(m[2]), 10), m[3]) for m in found if m]
    for kind, made_for, only in built:
        same = made_for == has if only == "a" else made_for[0] == has[0] and made_for <= has
        if same or (kind == "compute" and not only and made_for <= has):
            return None
    if not built:  # a build for ROCm, or one that does not tell
        return None
    why = f"without kernels for this GPU ({has[0]}.{has[1]}): it has {' '.join(names)}"
    if has > max(made_for for _, made_for, _ in built):
        return why, INSTALL_TORCH
    index = "https://download.pytorch.org/whl/cu126"
    older = f"`pip install --force-reinstall torch --index-url {index}` knows older GPUs"
    return why, f"{older}; `export CUDA_VISIBLE_DEVICES=-1` uses the CPU"


def _why_no_gpu(build: str | None) -> tuple[str, str]:
    """The reason, and the command that solves it."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides it", "`unset CUDA_VISIBLE_DEVICES`"
    if build is None:
        return "this torch is built for the CPU only", INSTALL_TORCH
    driver = _driver()
    if driver == "":
        why = "this program cannot tell why, as `nvidia-smi` names no version of CUDA"
        return why, f"see whether the driver is new enough for CUDA {build}; restart the machine"
    if driver is not None and int(driver.split(".")[0]) < int(build.split(".")[0]):
        why = f"its driver goes up to CUDA {driver}"
        return why, f"update the driver and restart, or {INSTALL_TORCH}"
    if driver:
        why = f"its driver is new enough (CUDA {driver}), but torch can't reach it"
        return why, f"`{sys.executable} -c 'import torch; torch.cuda.init()'` says what is wrong"
    return "its driver does not answer", "`nvidia-smi` says what is wrong; restart the machine"


def _driver() -> str | None:
    """The newest CUDA that the driver runs, such as "12.4"; "" where it is not named, else None."""
    try:
        smi = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"CUDA (?:\w+ )?Version: (\d+\.\d+)", smi.stdout)  # since 610: "CUDA UMD ..."
    return found[1] if found else None if smi.returncode else ""


def memory() -> Iterator[Check]:
    """Free memory of the machine and of each GPU."""
    yield _room("memory", free_memory("cpu"), 1, "shut down other notebooks and programs")
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield _room(f"GPU {i}", free_memory(f"cuda:{i}"), 1, "shut down what else uses it")


def disk() -> Iterator[Check]:
    """Free space where models from the hub are kept, and whether that disk outlives a stop."""
    todo = "make room, or set HF_HOME to a folder on a larger disk; only other models need it"
    yield _room("disk for models", free_disk(), 5, todo)
    for box, is_here, pattern in BOXES:
        if is_here():
            lasting = sorted(glob(pattern)) or [pattern.replace("*", "NAME")]
            lasts = any(Path(constants.HF_HUB_CACHE).is_relative_to(path) for path in lasting)
            found = f"{'outlives' if lasts else 'is lost at'} a stop of this {box} box"
            command = "%env" if box == "Colab" else "export"
            todo = "" if lasts else f"`{command} HF_HOME={lasting[0]}/huggingface`, then restart"
            yield Check("that disk", "ok" if lasts else "warning", found, todo)
            break


def free_disk() -> int:
    """The bytes that are free where models from the hub are kept."""
    folder = Path(constants.HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _room(what: str, free: int, enough: int, todo: str) -> Check:
    """`free` is in bytes, `enough` in GiB."""
    few = free < enough * 2**30
    found = f"{free / 2**30:.0f} GiB free"
    return Check(what, "warning" if few else "ok", found, todo if few else "")


def widgets() -> Iterator[Check]:
    """Whether JupyterLab has the part that draws ipywidgets, of the version that fits."""
    what, own = "widgets", {"COLAB_RELEASE_TAG": "Colab", "VSCODE_PID": "VS Code"}
    drawn_by = next((name for variable, name in own.items() if variable in os.environ), None)
    version, manager = installed("ipywidgets") or "0", installed("jupyterlab_widgets")
    todo = "`pip install -U ipywidgets jupyterlab_widgets`, then restart JupyterLab"
    if drawn_by or not installed("jupyterlab"):
        yield Check(what, "ok", f"drawn by {drawn_by or 'the editor that you use'}")
    elif manager is None:
        yield Check(what, "warning", "JupyterLab lacks the part that draws them", todo)
    # ipywidgets 8 goes with jupyterlab_widgets 3, ipywidgets 7 with 1.
    elif (int(version.split(".")[0]) >= 8) != (int(manager.split(".")[0]) >= 3):
        found = f"ipywidgets {version} and jupyterlab_widgets {manager} do not fit together"
        yield Check(what, "warning", found, todo)
    else:
        yield Check(what, "ok", f"ipywidgets {version}, and JupyterLab's part of it, {manager}")
