"""What the doctor says of the machine: GPU, memory, disk, widgets. Used by `doctor`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import torch

from tutorial_utils.doctor.check import Check, installed
from tutorial_utils.models.load import pick_device, pick_dtype

WHEELS = "https://download.pytorch.org/whl"
BUILDS = ["11.8", "12.1", "12.4", "12.6", "12.8", "13.0"]  # of CUDA that torch is published for
# How a rented box is recognised, and the folders on it that outlive a stop: docs/gpu-boxes.md says
# where each service tells so. On Lambda, each filesystem that was attached is one folder.
BOXES = [
    ("RunPod", lambda: "RUNPOD_POD_ID" in os.environ, "/workspace"),
    ("Colab", lambda: "COLAB_RELEASE_TAG" in os.environ, "/content/drive/MyDrive"),
    ("Lambda", lambda: Path("/lambda/nfs").is_dir(), "/lambda/nfs/*"),
    ("JarvisLabs", lambda: Path("/home/jl_fs").is_dir(), "/home"),
]


def device() -> Check:
    """The device and the dtype that `load_model` takes, and why a GPU is not used."""
    chosen = pick_device()
    build = torch.version.cuda or torch.version.hip
    kind = f"CUDA {build}" if torch.version.cuda else f"ROCm {build}" if build else "the CPU"
    gpu = f" ({torch.cuda.get_device_name(chosen)})" if chosen.type == "cuda" else ""
    dtype = str(pick_dtype(chosen)).removeprefix("torch.")
    found = f"{chosen}{gpu}, {dtype}; torch is built for {kind}"
    there = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists()
    if chosen.type != "cpu" or not there:
        return Check("device", "ok", found)
    why, todo = _why_no_gpu(torch.version.cuda)
    return Check("device", "warning", f"{found}; the NVIDIA GPU is not used: {why}", todo)


def _why_no_gpu(build: str | None) -> tuple[str, str]:
    """The reason, and the command that mends it."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides it", "`unset CUDA_VISIBLE_DEVICES`"
    driver = _driver()
    fitting = [b for b in BUILDS if driver is None or _number(b) <= _number(driver)]
    name = f"cu{(fitting or BUILDS[:1])[-1].replace('.', '')}"
    install = f"`pip install --force-reinstall torch --index-url {WHEELS}/{name}`"
    if build is None:
        return "this torch is built for the CPU only", install
    if driver is not None and _number(driver)[0] < _number(build)[0]:
        why = f"its driver goes up to CUDA {driver}"
        return why, f"update the driver and restart, or {install}"
    return "its driver does not answer", "`nvidia-smi` says what is wrong; restart the machine"


def _driver() -> str | None:
    """The newest CUDA that the driver can run, such as "12.4"; None where it does not tell."""
    try:
        command = ["nvidia-smi"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"CUDA Version: (\d+\.\d+)", text)
    return found[1] if found else None


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def memory() -> Iterator[Check]:
    """Free memory of the machine and of each GPU."""
    from tutorial_utils.models.memory import free_memory

    yield _room("memory", free_memory("cpu"), 1, "shut down other notebooks and programs")
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield _room(f"GPU {i}", free_memory(f"cuda:{i}"), 1, "shut down what else uses it")


def disk() -> Iterator[Check]:
    """Free space where models from the hub are kept, and whether that disk outlives a stop."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    todo = "make room, or set HF_HOME to a folder on a larger disk; only other models need it"
    yield _room("disk for models", shutil.disk_usage(folder).free, 5, todo)
    for box, is_here, pattern in BOXES:
        if is_here():
            lasting = sorted(glob(pattern)) or [pattern.replace("*", "NAME")]
            lasts = any(Path(HF_HUB_CACHE).is_relative_to(path) for path in lasting)
            found = f"{'outlives' if lasts else 'is lost at'} a stop of this {box} box"
            command = "%env" if box == "Colab" else "export"
            todo = "" if lasts else f"`{command} HF_HOME={lasting[0]}/huggingface`, then restart"
            yield Check("that disk", "ok" if lasts else "warning", found, todo)
            break


def _room(what: str, free: int, enough: int, todo: str) -> Check:
    """`free` is in bytes, `enough` in GiB."""
    few = free < enough * 2**30
    found = f"{free / 2**30:.0f} GiB free"
    return Check(what, "warning" if few else "ok", found, todo if few else "")


def widgets() -> Check:
    """Whether JupyterLab has the part that draws ipywidgets, of the version that fits."""
    what, own = "widgets", {"COLAB_RELEASE_TAG": "Colab", "VSCODE_PID": "VS Code"}
    for variable, program in own.items():
        if variable in os.environ:
            return Check(what, "ok", f"drawn by {program} itself")
    version = installed("ipywidgets") or "0"
    if not installed("jupyterlab"):
        return Check(what, "ok", f"ipywidgets {version}, drawn by the editor that you use")
    todo = "`pip install -U ipywidgets jupyterlab_widgets`, then restart JupyterLab"
    manager = _manager()
    if manager is None:
        return Check(what, "warning", "JupyterLab lacks the part that draws them", todo)
    if (int(version.split(".")[0]) >= 8) != (int(manager.split(".")[0]) >= 5):
        found = f"ipywidgets {version} and JupyterLab's part, {manager}, do not fit together"
        return Check(what, "warning", found, todo)
    return Check(what, "ok", f"ipywidgets {version}, and JupyterLab's part of it, {manager}")


def _manager() -> str | None:
    """The version of JupyterLab's extension that draws widgets: 5 for ipywidgets 8, 3 for 7."""
    from jupyter_core.paths import jupyter_path

    for folder in jupyter_path("labextensions"):
        file = Path(folder, "@jupyter-widgets/jupyterlab-manager/package.json")
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))["version"]
    return None
