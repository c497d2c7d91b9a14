"""Where torch comes from: the machine's own Python, PyTorch's index of CPU builds, or pip's index.

Used by setup_env.py. It runs on the machine's own Python, with nothing installed.
"""

import importlib.metadata
import re
import shutil
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class MachineTorch(NamedTuple):
    """The torch that the machine's own Python has."""

    version: str
    for_gpu: bool  # built for CUDA or ROCm
    needs: frozenset[str]  # names of the packages it stands on, itself and numpy among them


class Plan(NamedTuple):
    """What set-up does about torch, and why."""

    source: str  # "machine", "cpu index" or "pip"
    reason: str


def find_machine_torch(path: list[str] = sys.path) -> MachineTorch | None:
    """Looks without importing: that would take seconds, and may fail on a broken one."""
    installed = {}
    for dist in importlib.metadata.distributions(path=path):
        installed.setdefault(_normalise(dist.metadata["Name"] or ""), dist)
    if "torch" not in installed:
        return None
    torch = installed["torch"]
    try:
        version_file = Path(torch.locate_file("torch/version.py")).read_text()
    except OSError:
        version_file = ""
    for_gpu = re.search(r"^(cuda|hip)\b[^=]*= *['\"]\d", version_file, re.MULTILINE) is not None
    needs, to_visit = set(), ["torch", "numpy"]
    while to_visit:
        name = to_visit.pop()
        if name in installed and name not in needs:
            needs.add(name)
            to_visit += [_normalise(line) for line in installed[name].requires or []]
    return MachineTorch(torch.version, for_gpu, frozenset(needs))


def plan_torch(
    machine: MachineTorch | None,
    pyproject: str,
    constraints: str,
    *,
    platform: str = sys.platform,
    has_gpu: Callable[[], bool] | None = None,
    index_answers: Callable[[], bool] | None = None,
) -> Plan:
    """Decides, from the machine's torch and the text of pyproject.toml and constraints.txt."""
    pinned = re.search(r"^torch==(\S+)", constraints, re.MULTILINE)[1]
    oldest = re.search(r'"torch>=(\d+\.\d+)', pyproject)[1]
    if machine and machine.for_gpu:
        found = f"this machine's Python has torch {machine.version} for its GPU"
        if _at_least(machine.version, oldest):
            return Plan("machine", f"{found}; .venv builds on it.")
        reason = f"{found}, but the series needs {oldest} or newer; .venv gets {pinned} of its own."
        return Plan("pip", reason)
    if platform != "linux":
        return Plan("pip", f"{pinned}, from where pip is set to look.")
    if (has_gpu or has_nvidia_gpu)():
        return Plan("pip", f"{pinned}, from where pip is set to look: this machine has a GPU.")
    if (index_answers or cpu_index_answers)():
        return Plan("cpu index", f"{pinned}, built for CPUs: this machine has no NVIDIA GPU.")
    reason = (
        f"{pinned}, from where pip is set to look. This machine has no NVIDIA GPU, so the build\n"
        f"for CPUs would do, but {CPU_INDEX} does not answer.\n"
        "If pip gets the build for GPUs instead: it runs as well, and takes longer and more disk."
    )
    return Plan("pip", reason)


def constraints_for(plan: Plan, machine: MachineTorch | None, constraints: str) -> str:
    """The pins that fit the plan: none may touch the machine's torch or what it stands on."""
    if plan.source != "machine":
        return constraints
    lines = [s for s in constraints.splitlines() if _normalise(s) not in machine.needs | {"torch"}]
    return "\n".join([*lines, f"torch==={machine.version}", ""])


def has_nvidia_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia[0-9]*"))


def cpu_index_answers() -> bool:
    try:
        with urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=5):
            return True
    except (OSError, ValueError):
        return False


def _normalise(requirement: str) -> str:
    """The package's name at the start of a requirement, spelt as pip compares it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]*", requirement)[0]).lower()


def _at_least(version: str, oldest: str) -> bool:
    numbers, preview = re.match(r"(\d+\.\d+)(?:\.0)?(a|b|rc|\.dev)?", version).groups()
    as_tuple = [tuple(map(int, text.split("."))) for text in (numbers, oldest)]
    return as_tuple[0] > as_tuple[1] or (numbers == oldest and not preview)
