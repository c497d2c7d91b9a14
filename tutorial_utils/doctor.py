"""`python -m tutorial_utils`: will this machine run the series, and if not, what to do."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

PACKAGE = "tutorial_utils"
PROMPT = "Trump works at McDonald's. Trump works at"
ANSWER = " McDonald"
INSTALL = "run `make lab`, or `pip install -r requirements.txt`, in the project's folder"


class Check(NamedTuple):
    """One line of the report."""

    what: str
    state: str  # "ok", "warning": the series runs, but; "problem": it does not
    found: str
    todo: str = ""  # what to do next, where the state is not ok

    def __str__(self) -> str:
        line = f"{self.state:<8} {self.what:<15} {self.found}"
        return f"{line}\n{'':<24} -> {self.todo}" if self.todo else line


def check_machine() -> list[Check]:
    """Look at everything that the series needs. Nothing is downloaded, nothing is changed."""
    checks = _versions()
    try:
        import torch  # noqa: F401

        from . import decoding, models  # noqa: F401
    except Exception as error:  # not installed, or an installation that is broken
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return [*checks, Check("imports", "problem", text, INSTALL)]
    return [*checks, _device(), *_memory(), _disk(), _shipped_model(), _chosen_model()]


def main() -> int:
    """Print the report; 0 if the series runs here, else 1."""
    checks = check_machine()
    problems = sum(check.state == "problem" for check in checks)
    print(*checks, "", sep="\n")
    print(
        f"Problems: {problems}. What to do is next to ->." if problems else "The series runs here."
    )
    return min(problems, 1)


def _versions() -> list[Check]:
    """Python and packages, against the ranges that the package itself was installed with."""
    try:
        from packaging.requirements import Requirement
        from packaging.specifiers import SpecifierSet

        python = SpecifierSet(metadata.metadata(PACKAGE)["Requires-Python"] or "")
        needed = [Requirement(text) for text in metadata.requires(PACKAGE) or []]
    except ModuleNotFoundError as error:  # a PackageNotFoundError is one, too
        return [
            Check("packages", "warning", f"not checked: {error.name} is not installed", INSTALL)
        ]
    checks = [_version("Python", platform.python_version(), python)]
    for requirement in needed:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found = _installed(requirement.name)
            checks.append(_version(requirement.name, found, requirement.specifier))
    lab = _installed("jupyterlab")  # any program that opens notebooks does
    state, todo = ("ok", "") if lab else ("warning", "`pip install jupyterlab`, or use your editor")
    return [*checks, Check("jupyterlab", state, lab or "not installed", todo)]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _version(name: str, found: str | None, allowed: SpecifierSet) -> Check:
    if found is None:
        return Check(name, "problem", f"not installed (needs {allowed})", INSTALL)
    if not allowed.contains(found, prereleases=True):
        todo = "install such a Python first" if name == "Python" else INSTALL
        return Check(name, "problem", f"{found} (needs {allowed})", todo)
    return Check(name, "ok", found)


def _device() -> Check:
    """The device and the dtype that `load_model` takes, and a GPU that torch does not see."""
    import torch

    from .models import pick_device, pick_dtype

    device = pick_device()
    build = torch.version.cuda or torch.version.hip
    kind = f"CUDA {build}" if torch.version.cuda else f"ROCm {build}" if build else "the CPU"
    gpu = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    dtype = str(pick_dtype(device)).removeprefix("torch.")
    found = f"{device}{gpu}, {dtype}; torch is built for {kind}"
    nvidia = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists()
    if device.type == "cpu" and nvidia:
        todo = "update the GPU's driver (`nvidia-smi` shows which is there)"
        if not build:
            todo = "install torch's build for CUDA: https://pytorch.org/get-started/locally"
        return Check("device", "warning", f"{found}; the NVIDIA GPU is not used", todo)
    return Check("device", "ok", found)


def _memory() -> list[Check]:
    """Free memory of the machine and of each GPU."""
    import torch

    from .memory import free_memory

    checks = [_room("memory", free_memory("cpu"), 1, "shut down other notebooks and programs")]
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        checks.append(_room(f"GPU {i}", free_memory(f"cuda:{i}"), 1, "shut down what else uses it"))
    return checks


def _disk() -> Check:
    """Free space where models from the hub are kept."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    todo = "make room, or set HF_HOME to a folder on a larger disk; only other models need it"
    return _room("disk for models", shutil.disk_usage(folder).free, 5, todo)


def _room(what: str, free: int, enough: int, todo: str) -> Check:
    """`free` is in bytes, `enough` in GiB."""
    few = free < enough * 2**30
    found = f"{free / 2**30:.0f} GiB free"
    return Check(what, "warning" if few else "ok", found, todo if few else "")


def _shipped_model() -> Check:
    """Load the shipped model and ask it the series' own question."""
    from .decoding import next_token_probs, top_tokens
    from .models import load_model

    what = "shipped model"
    try:
        model, tokenizer = load_model("pocket-llama")
        [(token, probability)] = top_tokens(
            next_token_probs(model, tokenizer, PROMPT)[0], tokenizer, 1
        )
    except Exception as error:
        return Check(what, "problem", f"does not load: {error}", INSTALL)
    found = f'"{PROMPT}" goes on with "{token}" (probability {probability:.2f})'
    if token != ANSWER:
        return Check(what, "warning", found, f'expected "{ANSWER}": are its files whole?')
    return Check(what, "ok", found)


def _chosen_model() -> Check:
    """What `load_model()` means here. The model itself is not loaded: it may be large."""
    from .models import _find, _in_cache

    what, name = "TUTORIAL_MODEL", os.environ.get("TUTORIAL_MODEL", "").strip()
    if not name:
        return Check(what, "ok", "not set: the series runs on the shipped model")
    try:
        source, _ = _find(None)
        if isinstance(source, Path) or _in_cache(source):
            return Check(what, "ok", f"{name}, on this machine")
        return Check(what, "ok", f"{name}, downloaded when it is first loaded")
    except Exception as error:
        return Check(what, "problem", str(error), "`unset TUTORIAL_MODEL`, or name another model")
