"""The doctor's checks of the machine: GPU, memory, disk, widgets."""

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

# uv knows all builds of torch, and picks the one that fits the driver.
INSTALL_TORCH = (
    "`pip install uv`, then "
    f"`uv pip install --python {sys.executable} --reinstall torch --torch-backend=auto`"
)
# How to recognise a rented box, and its folders that survive when the box is stopped. The sources
# are in docs/gpu-boxes.md. On Lambda, each attached filesystem is one folder.
BOXES = [
    ("RunPod", lambda: "RUNPOD_POD_ID" in os.environ, "/workspace"),
    ("Colab", lambda: "COLAB_RELEASE_TAG" in os.environ, "/content/drive/MyDrive"),
    ("Lambda", lambda: Path("/lambda/nfs").is_dir(), "/lambda/nfs/*"),
    ("JarvisLabs", lambda: Path("/home/jl_fs").is_dir(), "/home"),
]


def device() -> Iterator[Check]:
    """The device and dtype that `load_model` chooses here; the reason, if it is not the GPU."""
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
    """Why this torch cannot compute on this GPU, and what to do; None if it can.

    torch is compiled for a list of GPUs. "sm_86" in it is machine code for the compute capabilities
    8.6 to 8.9. "compute_86" is code that the driver compiles for 8.6 and all newer capabilities. An
    "a" after the number means this capability only.
    """
    has = torch.cuda.get_device_capability(gpu)
    names = torch.cuda.get_arch_list()
    found = [re.fullmatch(r"(sm|compute)_(\d+)([af]?)", name) for name in names]
    built = [(m[1], divmod(int(m[2]), 10), m[3]) for m in found if m]
    for kind, made_for, only in built:
        same = made_for == has if only == "a" else made_for[0] == has[0] and made_for <= has
        if same or (kind == "compute" and not only and made_for <= has):
            return None
    if not built:  # a build for ROCm, or one without such a list
        return None
    capability = f"compute capability {has[0]}.{has[1]}"
    why = f"but not for this GPU ({capability}), only for {' '.join(names)}"
    if has > max(made_for for _, made_for, _ in built):
        return why, INSTALL_TORCH
    index = "https://download.pytorch.org/whl/cu126"
    older = f"`pip install --force-reinstall torch --index-url {index}` supports older GPUs"
    return why, f"{older}; `export CUDA_VISIBLE_DEVICES=-1` uses the CPU"


def _why_no_gpu(build: str | None) -> tuple[str, str]:
    """Why torch, built for CUDA version `build`, does not use the GPU, and what to do."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides it", "`unset CUDA_VISIBLE_DEVICES`"
    if build is None:
        return "this torch is built for the CPU only", INSTALL_TORCH
    driver = _driver()
    if driver == "":
        why = "the reason is unknown, because `nvidia-smi` names no version of CUDA"
        return why, f"check that the driver is new enough for CUDA {build}; restart the machine"
    if driver is not None and int(driver.split(".")[0]) < int(build.split(".")[0]):
        why = f"its driver supports CUDA up to {driver}"
        return why, f"update the driver and restart, or {INSTALL_TORCH}"
    if driver:
        why = f"its driver is new enough (CUDA {driver}), but torch can't reach it"
        return why, f"`{sys.executable} -c 'import torch; torch.cuda.init()'` says what is wrong"
    return "its driver does not answer", "`nvidia-smi` says what is wrong; restart the machine"


def _driver() -> str | None:
    """The newest CUDA version that the driver runs, such as "12.4".

    "" if `nvidia-smi` runs but names no version, None if it fails.
    """
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
        yield _room(f"GPU {i}", free_memory(f"cuda:{i}"), 1, "shut down other programs on it")


def disk() -> Iterator[Check]:
    """Free space where hub models are stored, and whether they are kept when the box is stopped."""
    todo = "make room, or set HF_HOME to a folder on a larger disk"
    todo += "; the shipped model needs no room there"
    yield _room("disk for models", free_disk(), 5, todo)
    for box, is_here, pattern in BOXES:
        if is_here():
            lasting = sorted(glob(pattern)) or [pattern.replace("*", "NAME")]
            lasts = any(Path(constants.HF_HUB_CACHE).is_relative_to(path) for path in lasting)
            found = f"models are {'kept' if lasts else 'lost'} when this {box} box is stopped"
            command = "%env" if box == "Colab" else "export"
            todo = "" if lasts else f"`{command} HF_HOME={lasting[0]}/huggingface`, then restart"
            yield Check("disk of the box", "ok" if lasts else "warning", found, todo)
            break


def free_disk() -> int:
    """How many bytes are free where models from the hub are stored."""
    folder = Path(constants.HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _room(what: str, free: int, enough: int, todo: str) -> Check:
    """Warn if fewer than `enough` GiB are free; `free` is in bytes."""
    is_low = free < enough * 2**30
    found = f"{free / 2**30:.0f} GiB free"
    return Check(what, "warning" if is_low else "ok", found, todo if is_low else "")


def widgets() -> Iterator[Check]:
    """Whether JupyterLab has the extension that draws ipywidgets, in a version that fits."""
    what, own = "widgets", {"COLAB_RELEASE_TAG": "Colab", "VSCODE_PID": "VS Code"}
    drawn_by = next((name for variable, name in own.items() if variable in os.environ), None)
    version, manager = installed("ipywidgets") or "0", installed("jupyterlab_widgets")
    todo = "`pip install -U ipywidgets jupyterlab_widgets`, then restart JupyterLab"
    if drawn_by or not installed("jupyterlab"):
        yield Check(what, "ok", f"drawn by {drawn_by or 'your editor'}")
    elif manager is None:
        yield Check(what, "warning", "JupyterLab lacks the extension that draws them", todo)
    # ipywidgets 8 needs jupyterlab_widgets 3, ipywidgets 7 needs version 1.
    elif (int(version.split(".")[0]) >= 8) != (int(manager.split(".")[0]) >= 3):
        found = f"ipywidgets {version} and jupyterlab_widgets {manager} do not fit together"
        yield Check(what, "warning", found, todo)
    else:
        yield Check(what, "ok", f"ipywidgets {version}, and JupyterLab's extension {manager}")
